"""Answers: what an engine says to every image of a data set, and the checks that make logits and labels usable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import MeasurementError
from toolkit.outputs import Outputs
from toolkit.types import Array, Float, Frozen

Labels = NDArray[np.int64]


class Answers(Frozen, frozen=True):
    """The raw outcome on one data set, an entry an image: the class answered, and where the true class stood (0: first)."""

    engine: str
    data: str  # SHA-256 of the preprocessed images
    top1: tuple[int, ...]
    labels: tuple[int, ...] | None = None
    ranks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for each in (self.labels, self.ranks):
            if each is not None and (len(each) != len(self.top1) or min(each, default=0) < 0):
                raise ValueError("labels and ranks are 0 or more, one an image")

    @classmethod
    def of(cls, engine: str, data: str, logits: Float, labels: Labels | None, meaning: Outputs = Outputs()) -> Answers:  # noqa: B008
        """From outputs [n, columns], read as `meaning` says, and labels [n]. Of an image's several labels the top one is kept."""
        scores = meaning.scores(logits)
        top1 = tuple(scores.argmax(1).tolist())
        if labels is None or meaning.multilabel:
            return cls(engine=engine, data=data, top1=top1)
        ranks = tuple(rank_of(scores, labels).tolist())
        return cls(engine=engine, data=data, top1=top1, labels=tuple(labels.tolist()), ranks=ranks)


def rank_of(logits: Float, labels: Labels) -> Labels:
    """How many classes scored above the true one, int64 [n]; among equal scores the lower class comes first."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    tied_before = (logits == own) & (np.arange(logits.shape[1])[None] < labels[:, None])
    ranks: Labels = np.count_nonzero((logits > own) | tied_before, axis=1).astype(np.int64)
    return ranks


def check_logits(logits: Array, count: int, name: str, *, first: int = 0) -> None:
    """Raises MeasurementError unless `logits` is [count, classes] of finite numbers; `first` is the first image's number."""
    if logits.ndim != 2 or len(logits) != count:
        raise MeasurementError(f"{name} answered {count} images with an array of shape {list(logits.shape)}")
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        where = first + int(np.argmin(finite))
        remedy = "Look for the layer that overflows: toolkit inspect ENGINE, and keep it in FP32 (precision.keep_fp32)"
        raise MeasurementError(f"{name} answered image {where} with NaN or infinity", remedy=remedy)


def check_labels(labels: Labels, count: int, classes: int) -> None:
    """Raises MeasurementError unless each image has a label that the engine knows, and two classes at least occur."""
    if len(labels) != count:
        raise MeasurementError(f"there are {count} images and {len(labels)} labels", remedy="Give one label an image")
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        what = f"image {bad[0]} is labeled {labels[bad[0]]}, but the engine answers classes 0 to {classes - 1}"
        raise MeasurementError(what, remedy="Use the data set that belongs to this model, or check its class order")
    if len(np.unique(labels)) < 2:
        kinds = f"the single label {labels[0]}" if count else "no label"
        what = f"the {count} images carry {kinds}: accuracy on them says nothing"
        raise MeasurementError(what, remedy="Use images of two classes at least")


def snr(truth: Float, answer: Float) -> float:
    """Signal to noise of logits [n, classes] in dB, as `decibels` has it."""
    if not np.isfinite(answer).all():
        return -120.0
    truth = truth.astype(np.float64)
    return decibels(float((truth**2).sum()), float(((answer - truth) ** 2).sum()))


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two powers, -120 to 120: 120 where nothing differs; -120 where the noise is not finite, or
    is all that there is."""
    if noise <= 0:
        return 120.0
    if signal <= 0 or not np.isfinite(noise):
        return -120.0
    return max(-120.0, min(120.0, 10 * float(np.log10(signal / noise))))
