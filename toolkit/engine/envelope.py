"""Envelope of a predicted judgement: between which bounds the answers lie where the engine runs, and which images may flip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.harness.accuracy import answers_of
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import Images
from toolkit.types import Float, Frozen, Stage

if TYPE_CHECKING:
    from toolkit.engine.engine import Engine

MOST = 2000  # images that an envelope tries: each is answered four times more, and FP16 accumulators are slow to play
SHOWN = 3  # images that a line names


class Close(Frozen, frozen=True):
    """An image whose top-1 answer another rounding may change: its lead is at most twice what the ways tried moved it.

    `lead`: of the top-1 answer over the next as the graph is typed, in the unit of the outputs; `moved`: the most that a way of
    rounding moved that lead, up or down. Where `moved` is larger, a way tried may have changed the answer: then it is in `flips`.
    """

    index: int
    image: str
    lead: float
    moved: float


class Envelope(Frozen, frozen=True):
    """What may come out where the engine runs, under each way that a GPU may round (see `graph/envelope.py`).

    Bounds are image by image: each image's answer is that of any one way. `flips` are the images whose top-1 differs among ways,
    `close` these and those that are near it, the least lead for its movement first. Of more than `MOST` images so many are tried,
    spread evenly: `images` says how many, and what is said is of those.
    """

    ways: tuple[str, ...]
    flips: tuple[int, ...]
    agreement: tuple[float, float] | None = None  # with the reference, 0 to 1; None where not all images could be compared
    top1: tuple[float, float] | None = None  # None without labels
    images: int = 0  # how many were tried; 0: all
    close: tuple[Close, ...] = ()

    def __str__(self) -> str:
        spans = (("agreement", self.agreement), ("top-1", self.top1))
        between = ", ".join(f"{name} between {low:.2%} and {high:.2%}" for name, (low, high) in _known(spans))
        answers = "1 answer depends" if len(self.flips) == 1 else f"{len(self.flips)} answers depend"
        share = f" on {self.images} of the images" if self.images else ""
        found = f"{answers} on how the GPU rounds ({len(self.ways)} ways tried{share})"
        found = f"{found}: predicted {between}" if between else found
        if not self.close:
            return found
        named = ", ".join(f"{one.image} (leads by {one.lead:.2g}, moved by {one.moved:.2g})" for one in self.close[:SHOWN])
        more = f" and {len(self.close) - SHOWN} more" if len(self.close) > SHOWN else ""
        return f"{found}\n  top-1 may change on {named}{more}"


def envelope_of(engine: Engine, images: Images, ours: Float, verdict: Verdict | None, stage: Stage) -> Envelope | None:
    """Under each rounding that the GPU may choose; `ours` are the answers as typed. None where the graph leaves no choice."""
    from toolkit.graph.envelope import roundings

    if not engine.manifest.to_target().is_nvidia or engine.manifest.meaning.multilabel:
        return None
    scores, ways, answers = engine.manifest.meaning.scores, list[str](), list[Float]()
    which = np.unique(np.linspace(0, images.count - 1, min(MOST, images.count)).astype(int))
    some = images if len(which) == images.count else images.take(which.tolist())
    live = roundings(engine.graph)
    for name, runner in live.items():
        saying = stage(f"under another rounding ({len(ways)} of {len(live) - 1}): {name}") if ways else None
        known = ours[which] if saying is None else answers_of(runner(), some, name=name, progress=saying)
        ways.append(name)
        answers.append(scores(known))
    if not ways:
        return None
    top = np.stack([one.argmax(1) for one in answers])
    flips = (top != top[0]).any(axis=0)
    agreement = top1 = None
    if verdict is not None and verdict.images == images.count:
        same = ~np.isin(which, verdict.disagreements)
        agreement = (float((same & ~flips).mean()), float((same | flips).mean()))
    if some.labels is not None:
        right = top == some.labels
        top1 = (float(right.all(axis=0).mean()), float(right.any(axis=0).mean()))
    tried = 0 if some is images else len(which)
    close = tuple(_close(np.stack([_lead(one, top[0]) for one in answers]), flips, which, images))
    changed = tuple(which[flips].tolist())
    return Envelope(ways=tuple(ways), flips=changed, agreement=agreement, top1=top1, images=tried, close=close)


def _lead(scores: Float, top: NDArray[np.int64]) -> NDArray[np.float64]:
    """By how much the class `top` [n] leads the best other one; below 0 where it is not first. `scores`: [n, classes]."""
    others = scores.astype(np.float64)
    own = others[np.arange(len(top)), top]
    others[np.arange(len(top)), top] = -np.inf
    lead: NDArray[np.float64] = own - others.max(axis=1)
    return lead


def _close(leads: NDArray[np.float64], flips: NDArray[np.bool_], which: NDArray[np.int64], images: Images) -> Iterator[Close]:
    """`leads`: [ways, n], as typed first; `which`: the images' numbers [n]."""
    lead, moved = leads[0], np.abs(leads - leads[0]).max(axis=0)
    near = np.flatnonzero(flips | (lead <= 2 * moved))
    order = sorted(near.tolist(), key=lambda at: float(lead[at] - moved[at]))
    for at in order:
        number = int(which[at])
        yield Close(index=number, image=images.name(number), lead=float(lead[at]), moved=float(moved[at]))


def _known(spans: Iterable[tuple[str, tuple[float, float] | None]]) -> Iterator[tuple[str, tuple[float, float]]]:
    return ((name, span) for name, span in spans if span is not None)
