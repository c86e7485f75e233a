"""Accuracy: an engine's logits on every image, and how two engines' logits become a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
import numpy as np

from toolkit.errors import MeasurementError
from toolkit.harness.answers import Labels, check_labels, check_logits, rank_of, snr
from toolkit.harness.paired import holm, mcnemar, paired_test
from toolkit.harness.verdict import ClassChange, Verdict
from toolkit.outputs import Outputs
from toolkit.recipe import Accept
from toolkit.types import Array, Classifier, Float, Progress


class LabeledImages(Protocol):
    """What `toolkit.images.open_data` returns, as far as accuracy needs it."""

    @property
    def count(self) -> int: ...

    @property
    def labels(self) -> Labels | None: ...

    @property
    def classes(self) -> tuple[str, ...] | None: ...

    @property
    def sha256(self) -> str: ...

    def batches(self, size: int) -> Iterator[Array]: ...


def fitting(images: LabeledImages, runner: Classifier) -> LabeledImages:
    """The images as `runner` takes them: engines that answer the same pictures may differ in how they preprocess them."""
    manifest, taken_as = getattr(runner, "manifest", None), getattr(images, "taken_as", None)
    if manifest is None or taken_as is None:
        return images
    found: LabeledImages = taken_as(manifest.preprocess)
    return found


def answers_of(
    runner: Classifier,
    images: LabeledImages,
    *,
    batch: int = 32,
    name: str = "the engine",
    progress: Progress | None = None,
) -> Float:
    """Logits float32 [count, classes] for all images, in their order; a Runner is given them as its manifest says.

    Raises MeasurementError where the runner answers NaN or infinity, naming the first such image, or a wrong shape.
    """
    parts: list[Float] = []
    done = 0
    for array in fitting(images, runner).batches(batch):
        logits = np.asarray(runner(array))
        check_logits(logits, len(array), name, first=done)
        parts.append(logits.astype(np.float32, copy=False))
        done += len(array)
        if progress:
            progress(done, images.count)
    if not parts:
        raise MeasurementError("there are no images to answer", remedy="Name a data set with images in it")
    return np.concatenate(parts)


def compare_accuracy(
    reference: Float,
    engine: Float,
    labels: Labels | None,
    accept: Accept = Accept(),  # noqa: B008  frozen
    *,
    classes: Sequence[str] | None = None,
    name: str = "the engine",
    against: str = "the reference",
    seed: int = 0,
    meaning: Outputs = Outputs(),  # noqa: B008  frozen
) -> Verdict:
    """The paired verdict on two arrays of outputs [n, columns] for the same n images, as `accept` says.

    What the columns are, `meaning` says. Without labels, or where each column is a label of its own, it rests on agreement alone.
    Raises MeasurementError: shapes differ, NaN, labels out of range or of a single class.
    """
    verdict = _agreement(reference, engine, accept, name, against, seed, meaning)
    if meaning.multilabel:
        return _label_by_label(verdict, meaning.yes(reference), meaning.yes(engine), classes)
    if labels is None:
        return verdict
    check_labels(labels, len(reference), meaning.classes(reference.shape[1]))
    before, after = rank_of(meaning.scores(reference), labels), rank_of(meaning.scores(engine), labels)
    return msgspec.structs.replace(
        verdict,
        top1=(float((before == 0).mean()), float((after == 0).mean())),
        top5=(float((before < 5).mean()), float((after < 5).mean())),
        test=paired_test(before == 0, after == 0, margin=accept.max_top1_drop / 100, seed=seed),
        changes=_changes(labels, before == 0, after == 0, classes),
    )


def _agreement(
    reference: Float, engine: Float, accept: Accept, name: str, against: str, seed: int, meaning: Outputs
) -> Verdict:
    """What can be said without labels. Raises MeasurementError: shapes differ, NaN, no answers."""
    check_logits(reference, len(reference), against)
    check_logits(engine, len(engine), name)
    if reference.shape != engine.shape:
        what = f"{against} gives logits {list(reference.shape)}, {name} {list(engine.shape)}: they cannot be compared"
        raise MeasurementError(what, remedy="Give both the same images, and engines of the same classes")
    if not len(reference):
        raise MeasurementError("there are no answers to compare", remedy="Name a data set with images in it")
    error = np.abs(reference.astype(np.float64) - engine)
    before, after = meaning.scores(reference).argmax(1), meaning.scores(engine).argmax(1)
    differ = np.flatnonzero(after != before)
    sure = meaning.probabilities(reference)[differ]
    margins = sure[np.arange(len(differ)), before[differ]] - sure[np.arange(len(differ)), after[differ]]
    return Verdict(
        engine=name,
        reference=against,
        images=len(reference),
        margin=accept.max_top1_drop,
        min_agreement=accept.min_agreement,
        agreement=1 - len(differ) / len(reference),
        mean_logit_error=float(error.mean()),
        worst_logit_error=float(error.max()),
        worst_image=int(error.max(axis=1).argmax()),
        disagreements=tuple(differ.tolist()),
        margins=tuple(round(float(margin), 6) for margin in margins),
        seed=seed,
        snr=snr(reference, engine),
    )


def _label_by_label(verdict: Verdict, before: Array, after: Array, names: Sequence[str] | None) -> Verdict:
    """The verdict on a multi-label network, bool [n, labels] each: the lowest agreement of a label, or, where that is lower, the
    share of all yes answers that both give (Dice, 1945). That share is top-1 agreement where each image has one yes; where a yes
    is rare, labels alone would agree by answering no."""
    shares = (before == after).mean(axis=0)
    lowest = int(shares.argmin())
    both, said = int((before & after).sum()), int(before.sum()) + int(after.sum())
    dice = 2 * both / said if said else 1.0
    return msgspec.structs.replace(
        verdict,
        agreement=min(float(shares[lowest]), dice),
        disagreements=tuple(np.flatnonzero((before != after).any(axis=1)).tolist()),
        margins=(),
        labels=before.shape[1],
        lowest_label=(names[lowest] if names is not None and lowest < len(names) else str(lowest), float(shares[lowest])),
        shared_yes=dice if said else None,
    )


def _changes(labels: Labels, before: Array, after: Array, names: Sequence[str] | None) -> tuple[ClassChange, ...]:
    """Each class that occurs, with McNemar's p corrected for the number of classes (Holm, 1979)."""
    rows = [(int(k), before[labels == k], after[labels == k]) for k in np.unique(labels)]
    corrected = holm([mcnemar(int((b & ~a).sum()), int((a & ~b).sum())) for _, b, a in rows])
    return tuple(
        ClassChange(
            label=k,
            name=names[k] if names is not None and k < len(names) else str(k),
            images=len(b),
            reference=float(b.mean()),
            engine=float(a.mean()),
            p=p,
        )
        for (k, b, a), p in zip(rows, corrected, strict=True)
    )
