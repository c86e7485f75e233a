"""Gallery: the images on which an engine and its reference answer differently, the worst first, with both answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from xml.etree.ElementTree import Element

from PIL import Image

from toolkit.harness.answers import Answers
from toolkit.harness.results import Results
from toolkit.harness.verdict import Verdict
from toolkit.report.markup import tag
from toolkit.types import Frozen

LIMIT = 24
SIDE = 112  # pixels: small enough to embed, large enough to see why an answer was hard
Picture = Callable[[int], Image.Image]  # index in the data set -> how the image looks


class Disagreement(Frozen, frozen=True):
    """One image: what each answered, and the label where there is one."""

    index: int
    engine: str
    reference: str
    truth: str | None
    image: str  # a data URI


class Gallery(Frozen, frozen=True):
    """Of one engine: the first few disagreements, out of how many."""

    engine: str
    reference: str
    total: int
    images: int
    shown: tuple[Disagreement, ...]


def galleries(results: Results, picture_of: Callable[[str], Picture | None], limit: int = LIMIT) -> list[Gallery]:
    """One an engine that has a verdict with disagreements and answers on record.

    `picture_of` takes the SHA-256 of a data set (`Answers.data`) and gives the way to its pictures, or None where they are not
    here: the gallery then shows the answers alone. At most `limit` images in all.
    """
    made = []
    shares = _shares({v.engine: len(v.disagreements) for v in results.verdicts if v.disagreements}, limit)
    for verdict in (v for v in results.verdicts if v.disagreements):
        ours = next((a for a in results.answers if a.engine == verdict.engine), None)
        theirs = next((a for a in results.answers if ours and a.engine == verdict.reference and a.data == ours.data), None)
        if ours is None or theirs is None:
            continue
        names = results.manifests.get(verdict.engine, {}).get("classes")
        made.append(_gallery(verdict, ours, theirs, names, picture_of(ours.data), shares[verdict.engine]))
    return made


def _shares(wanted: dict[str, int], limit: int) -> dict[str, int]:
    """How many images each engine shows: an equal part, and what engines with fewer leave over goes to those with more."""
    shares: dict[str, int] = {}
    for done, (name, count) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        shares[name] = min(count, (limit - sum(shares.values())) // (len(wanted) - done))
    return shares


def _gallery(
    verdict: Verdict, ours: Answers, theirs: Answers, names: Sequence[str] | None, picture: Picture | None, limit: int
) -> Gallery:
    def name(label: int) -> str:
        return names[label] if names and label < len(names) else f"class {label}"

    shown = [
        Disagreement(
            index=i,
            engine=name(ours.top1[i]),
            reference=name(theirs.top1[i]),
            truth=name(ours.labels[i]) if ours.labels else None,
            image=data_uri(picture(i)) if picture else "",
        )
        for i in worst_first(verdict, ours, theirs)[:limit]
    ]
    return Gallery(
        engine=verdict.engine,
        reference=verdict.reference,
        total=len(verdict.disagreements),
        images=verdict.images,
        shown=tuple(shown),
    )


def worst_first(verdict: Verdict, ours: Answers, theirs: Answers) -> list[int]:
    """The disagreements: right answers that became wrong, then wrong ones that became others, then those that became right.

    Among these, first where the reference was surest of its own answer.
    """
    margins = dict(zip(verdict.disagreements, verdict.margins, strict=False))

    def goodness(index: int) -> tuple[int, float, int]:
        truth = ours.labels[index] if ours.labels else None
        kind = 1 if truth is None else 0 if theirs.top1[index] == truth else 2 if ours.top1[index] == truth else 1
        return kind, -margins.get(index, 0.0), index

    return sorted(verdict.disagreements, key=goodness)


def data_uri(picture: Image.Image) -> str:
    """A PNG of SIDE pixels, embedded. A small picture is enlarged without smoothing: its pixels are what was seen."""
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def draw(gallery: Gallery) -> Element:
    """A <section>: cards with the picture and both answers, the right one marked in words."""
    count = "all of them" if len(gallery.shown) == gallery.total else f"the worst {len(gallery.shown)}"
    share = f"{gallery.total:,} of {gallery.images:,} images, {count} shown"
    head = tag("h3", f"{gallery.engine} against {gallery.reference}")
    cards = tag("ul", [_card(d) for d in gallery.shown], class_="gallery")
    missing = None if any(d.image for d in gallery.shown) else tag("p", "The pictures are not on this machine.", class_="absent")
    return tag("div", head, tag("p", share, class_="note"), missing, cards)


def _card(one: Disagreement) -> Element:
    alt = f"Image {one.index}: the engine says {one.engine}, the reference {one.reference}"
    picture = tag("img", src=one.image, alt=alt, loading="lazy") if one.image else None
    answers = [_answer("engine", one.engine, one.truth), _answer("reference", one.reference, one.truth)]
    truth = None
    if one.truth is not None and one.truth not in (one.engine, one.reference):
        truth = tag("div", tag("dt", "label"), tag("dd", one.truth))
    return tag("li", picture, tag("span", f"#{one.index}", class_="index"), tag("dl", answers, truth))


def _answer(who: str, said: str, truth: str | None) -> Element:
    right = None if truth is None else said == truth
    mark = "" if right is None else " ✓ right" if right else " ✗"
    return tag("div", tag("dt", who), tag("dd", said, tag("b", mark)), class_="right" if right else None)
