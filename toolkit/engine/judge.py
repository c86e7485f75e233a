"""Judging an engine against its reference, or another engine, with what is available: live, stored, or what the build said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from toolkit.disk.files import decode_json
from toolkit.engine.envelope import Envelope, envelope_of
from toolkit.engine.locations import is_here, require_reference
from toolkit.errors import BackendError, DataError, DeviceError, ToolkitError, extras
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.answers import rank_of
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import Images, class_names, open_data
from toolkit.reference.names import refuse_unfit
from toolkit.types import Classifier, Float, Frozen, Stage

if TYPE_CHECKING:
    from toolkit.engine.engine import Engine

REFERENCE, MEASURED = "the reference", "measured"


class Proof(Frozen, frozen=True):
    """A verdict and its provenance, as the build stores it in the engine."""

    verdict: Verdict
    how: str  # measured | predicted: why
    device: str = ""


class Judgement(Frozen, frozen=True):
    """What can be said of an engine here. `verdict` is None where nothing could be compared; then `stored` is the build's.

    `top1` is the engine's own share of right answers on labeled images, 0 to 1.
    """

    engine: str
    how: str
    verdict: Verdict | None = None
    stored: Proof | None = None
    top1: float | None = None
    images: int = 0
    remarks: tuple[str, ...] = ()
    envelope: Envelope | None = None  # where the answers are predicted, and the graph holds FP16

    @property
    def accepted(self) -> bool | None:
        """Whether it may replace the reference; None where neither this machine nor the build could tell."""
        return self._last.accepted if self._last is not None else None

    @property
    def undecided(self) -> bool:
        """Whether it is not accepted for want of images alone."""
        return self._last is not None and self._last.undecided

    @property
    def _last(self) -> Verdict | None:
        """The verdict here, else the build's."""
        return self.verdict or (self.stored.verdict if self.stored is not None else None)

    def __repr__(self) -> str:
        """As a notebook shows it."""
        return str(self)

    def __str__(self) -> str:
        lines = [f"{self.engine}: {self._last.state if self._last is not None else 'not judged'}"]
        if self.verdict is not None:
            lines[0] += f". {self.verdict.text}"
        elif self.stored is not None:
            lines[0] += f" when it was built. {self.stored.verdict.text}"
        if self.verdict is None and self.top1 is not None:
            lines.append(f"top-1 {self.top1:.2%} on {self.images} images here")
        if self.verdict is not None and self.verdict.undecided:
            lines.append(self.verdict.remedy)
        if self.envelope is not None:
            lines.append(str(self.envelope))
        return "\n  ".join((*lines, self.how, *self.remarks))


def judge(engine: Engine, data: str | None, against: Engine | None, stage: Stage) -> Judgement:
    """See `Engine.judge`."""
    stored = engine.proof
    images, missing = images_of(engine, data)
    if images is None:
        if against is not None:
            raise DataError(f"{missing}, and {engine.name} is compared with {against.name}", remedy="Name images: --data FOLDER")
        how = f"{missing}; this is the verdict of the build" if stored else f"{missing}, and the engine carries no verdict"
        if stored is None:
            raise DataError(how, remedy="Name labeled images: --data FOLDER; in Python judge(data=FOLDER)")
        where = f", on {stored.device}" if stored.device else ""
        return Judgement(engine=engine.name, how=how, stored=stored, remarks=(f"{stored.how}{where}",))
    with answering(engine) as (runner, how):
        ours = answers_of(runner, images, name=engine.name, progress=stage(f"answers of {engine.name}"))
    found = _compared(engine, images, ours, how, data, against, stage)
    if how == MEASURED:
        return found
    return msgspec.structs.replace(found, envelope=envelope_of(engine, images, ours, found.verdict, stage))


def _compared(
    engine: Engine, images: Images, ours: Float, how: str, data: str | None, against: Engine | None, stage: Stage
) -> Judgement:
    if against is not None:
        with answering(against) as (runner, _):
            truth: Float = answers_of(runner, images, name=against.name, progress=stage(f"answers of {against.name}"))
        return _judged(engine, against.name, images, truth, ours, how, None, images.remarks)
    remarks = images.remarks if data is None else (f"images: {images.where}", *images.remarks)
    return _against_reference(engine, images, ours, how, (*remarks, *engine.remarks), stage)


def _against_reference(
    engine: Engine, images: Images, ours: Float, how: str, remarks: tuple[str, ...], stage: Stage
) -> Judgement:
    """Against the stored answers where they cover the images, else the live reference, else the part that is covered."""
    answers = engine.answers
    rows, truth = answers.of(images.digests) if answers is not None else (np.zeros(0, np.int64), ours[:0])
    if len(rows) == images.count:
        remarks = (*remarks, f"the reference's answers are those that the engine carries, all {len(rows)} of them")
        return _judged(engine, REFERENCE, images, truth, ours, how, None, remarks)
    try:
        with extras(), open_baseline(engine) as reference:
            live = answers_of(reference, images, name=REFERENCE, progress=stage("answers of the reference"))
        return _judged(engine, REFERENCE, images, live, ours, how, None, remarks)
    except (ToolkitError, ImportError) as error:
        why = error.what if isinstance(error, ToolkitError) else str(error)
    if len(rows):
        remarks = (*remarks, f"the reference is not here ({why}); the engine carries its answers to {len(rows)} of these images")
        return _judged(engine, REFERENCE, images, truth, ours[rows], how, rows, remarks)
    meaning = engine.manifest.meaning
    judged = images.labels is not None and not meaning.multilabel
    top1 = float((rank_of(meaning.scores(ours), images.labels) == 0).mean()) if judged and images.labels is not None else None
    remarks = (*remarks, f"the reference is not here ({why}), and the engine carries no answers to these images")
    return Judgement(engine=engine.name, how=how, stored=engine.proof, top1=top1, images=images.count, remarks=remarks)


def _judged(
    engine: Engine,
    against: str,
    images: Images,
    truth: Float,
    ours: Float,
    how: str,
    rows: np.ndarray | None,
    remarks: tuple[str, ...] = (),
) -> Judgement:
    labels = images.labels if rows is None or images.labels is None else images.labels[rows]
    verdict = compare_accuracy(
        truth,
        ours,
        labels,
        engine.recipe.accept,
        classes=engine.manifest.classes or images.classes,
        name=engine.name,
        against=against,
        meaning=engine.manifest.meaning,
    )
    top1 = None if verdict.top1 is None else verdict.top1[1]
    count = len(ours)
    return Judgement(engine=engine.name, how=how, verdict=verdict, stored=engine.proof, top1=top1, images=count, remarks=remarks)


def images_of(engine: Engine, data: str | None) -> tuple[Images | None, str]:
    """The images at `data`, else those of the recipe's `[accept]` where they are on this machine; or None and why."""
    accept, recipe = engine.recipe.accept, engine.recipe
    if data is not None:
        names = engine.manifest.classes
        images = open_data(data, engine.manifest.preprocess, None, classes=names)
        refuse_unfit(engine.manifest, images, engine.name)
        return images, ""
    if accept.data is None:
        return None, f"the recipe of {engine.name} names no images to judge it on"
    if not is_here(accept.data):
        return None, f"the images of [accept], '{accept.data}', are not on this machine"
    try:
        names = class_names(recipe) if is_here(recipe.reference.classes) else engine.manifest.classes
        images = open_data(accept.data, recipe.preprocess, accept.images, classes=names)
        refuse_unfit(engine.manifest, images, engine.name)
        return images, ""
    except DataError as error:
        return None, error.what


@contextmanager
def open_baseline(engine: Engine) -> Iterator[Classifier]:
    """The reference itself, live. Raises ToolkitError or ImportError: its file, or what it takes to run it, is not here."""
    require_reference(engine.recipe)
    from toolkit.reference.source import open_reference

    with open_reference(engine.recipe) as live:
        yield live


@contextmanager
def answering(engine: Engine) -> Iterator[tuple[Classifier, str]]:
    """The engine, live; where this machine cannot run it, the graph that it was compiled from, on ONNX Runtime's CPU."""
    try:
        runner = engine.runner()
    except (BackendError, DeviceError) as error:
        if not engine.has_graph:
            raise
        with extras():
            from toolkit.graph.run import predicting_runner

        why = f"predicted: {error.what}; ONNX Runtime ran the graph that it was compiled from, rounded as the target rounds"
        yield predicting_runner(engine.graph, engine.manifest.to_target()), why
        return
    with runner:
        yield runner, MEASURED


def proof_of(data: bytes) -> Proof:
    """Raises ValueError where the bytes are no such file."""
    return msgspec.convert(decode_json(data), Proof)
