"""parity: what an engine's answers would be, did the app decode and resize its pictures in another way."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from toolkit.decoding.result import LIBRARIES, Flip, Outcome, Parity
from toolkit.decoding.ways import Way, missing, ways
from toolkit.engine.engine import Engine
from toolkit.engine.judge import answering, images_of
from toolkit.errors import BackendError, DataError, InputError
from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.answers import check_logits
from toolkit.harness.paired import share_interval
from toolkit.harness.verdict import Verdict
from toolkit.images.ahead import read_ahead
from toolkit.images.dataset import Images
from toolkit.images.picture import normalized, open_picture, preprocess
from toolkit.recipe import Preprocess
from toolkit.types import Array, Classifier, Float, Progress, Stage, quiet

__all__ = ["Flip", "Outcome", "Parity", "parity"]
BATCH = 32


def parity(
    engine: Engine | str | Path, *, data: str | Path | None = None, only: Sequence[str] = (), stage: Stage = quiet
) -> Parity:
    """Decode and resize every image in each way that an app might, and hold the answers against those of the engine's own.

    `data`: as `judge` takes it, a folder of pictures (absent: the images of `[accept]`); `only` names some of the ways, by their
    first letters. A library that is not installed is named, not counted as a pass. Raises DataError, InputError, EngineError;
    BackendError where no way can be tried.
    """
    engine = engine if isinstance(engine, Engine) else Engine.open(engine)
    how = engine.manifest.preprocess
    chosen = _chosen(ways(how), only)
    images, why_not = images_of(engine, None if data is None else str(data))
    if images is None:
        raise DataError(why_not, remedy="Name a folder of pictures: --data FOLDER")
    if images.is_ready:
        what = f"{images.where} holds preprocessed images, which are not decoded or resized"
        raise DataError(what, remedy="Name a folder of pictures: --data FOLDER")
    lacking = {way.name: why for way in chosen if (why := missing(way)) is not None}
    chosen = tuple(way for way in chosen if way.name not in lacking)
    if not chosen:
        name, why = next(iter(lacking.items()))
        raise BackendError(f"{name} cannot be tried: {why}", remedy=LIBRARIES)
    progress = stage(f"{images.count} images in {len(chosen) + 1} ways")
    with answering(engine) as (runner, how_run):
        sweep = _swept(runner, images, how, chosen, progress)
    return Parity(
        engine=engine.name,
        how=how_run,
        data=images.where,
        images=images.count,
        labeled=images.labels is not None,
        outcomes=tuple(_outcome(engine, way, images, sweep, index + 1) for index, way in enumerate(chosen)),
        missing=lacking,
        remarks=_remarks(images, sweep),
    )


def _chosen(every: tuple[Way, ...], only: Sequence[str]) -> tuple[Way, ...]:
    for name in only:
        if not any(way.name.startswith(name) for way in every):
            raise InputError(
                f"there is no library or method '{name}' to compare with", remedy=f"There are {', '.join(w.name for w in every)}"
            )
    return tuple(way for way in every if not only or any(way.name.startswith(name) for name in only))


class _Sweep(NamedTuple):
    """The engine's own way first, then each other: logits [n, columns], and mean |difference| of pixels in levels; `resized`:
    whether any picture was not of the network's size already."""

    logits: list[Float]
    levels: list[float]
    resized: bool


def _swept(runner: Classifier, images: Images, how: Preprocess, others: Sequence[Way], progress: Progress) -> _Sweep:
    """One pass over the images, in the memory of a batch. Pictures are read by threads."""
    own = msgspec.structs.replace(how, inside=True)

    def read(picture: Any) -> tuple[list[Array], bool]:
        resized = open_picture(picture, how.color, how.exif).size != (how.size[1], how.size[0])
        return [preprocess(picture, own), *(way.pixels(picture, how) for way in others)], resized

    logits: list[list[Float]] = [[] for _ in range(len(others) + 1)]
    totals, any_resized, done = np.zeros(len(others) + 1), False, 0
    with closing(read_ahead(map(images.item, range(images.count)), read, BATCH)) as reading:
        while some := list(islice(reading, BATCH)):
            any_resized |= any(resized for _, resized in some)
            first = np.stack([pixels[0] for pixels, _ in some])
            for index in range(len(others) + 1):
                pixels = np.stack([each[index] for each, _ in some])
                totals[index] += np.abs(pixels.astype(np.int16) - first).mean(axis=(1, 2, 3)).sum()
                taken = pixels if how.inside else np.stack([normalized(one, how) for one in pixels])
                answers = np.asarray(runner(taken), np.float32)
                check_logits(answers, len(some), "the engine", first=done)
                logits[index].append(answers)
            done += len(some)
            progress(done, images.count)
    return _Sweep([np.concatenate(parts) for parts in logits], (totals / images.count).tolist(), any_resized)


def _outcome(engine: Engine, way: Way, images: Images, sweep: _Sweep, index: int) -> Outcome:
    accept, meaning = engine.recipe.accept, engine.manifest.meaning
    truth, answers = sweep.logits[0], sweep.logits[index]
    verdict = compare_accuracy(
        truth, answers, images.labels, accept,
        classes=engine.manifest.classes or images.classes, name=way.name, against="the engine's own", meaning=meaning,
    )  # fmt: skip
    changed = len(verdict.disagreements)
    return Outcome(
        way=way.name,
        what=way.what,
        changed=changed,
        interval=share_interval(changed, images.count),
        levels=sweep.levels[index],
        verdict=verdict,
        flips=_flips(engine, images, truth, answers, verdict),
    )


def _flips(engine: Engine, images: Images, truth: Float, answers: Float, verdict: Verdict) -> tuple[Flip, ...]:
    meaning, names = engine.manifest.meaning, engine.manifest.classes or images.classes

    def called(index: int) -> str:
        return names[index] if names is not None and index < len(names) else str(index)

    before, after = meaning.scores(truth).argmax(1), meaning.scores(answers).argmax(1)
    labels = None if meaning.multilabel else images.labels
    return tuple(
        Flip(
            image=images.name(i),
            before=called(int(before[i])),
            after=called(int(after[i])),
            label=None if labels is None else called(int(labels[i])),
        )
        for i in verdict.disagreements
    )


def _remarks(images: Images, sweep: _Sweep) -> tuple[str, ...]:
    remarks = [] if images.labels is not None else [f"{images.where} has no labels: the verdicts rest on agreement alone"]
    if not sweep.resized:
        remarks.append("these pictures have the network's size already: what a resize changes cannot be measured on them")
    return (*images.remarks, *remarks)
