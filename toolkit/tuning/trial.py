"""Trial: one graph that the search has tried, with what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from toolkit.harness.accuracy import LabeledImages
from toolkit.harness.verdict import Verdict
from toolkit.recipe import Recipe
from toolkit.types import Array, Float, Frozen

if TYPE_CHECKING:
    from toolkit.harness.answers import Labels


class Trial(Frozen, frozen=True):
    """`snr` is that of the logits, in dB, on a few calibration images; `cost` the model's (see `cost.py`); times in ms."""

    name: str
    recipe: Recipe
    snr: float
    cost: float
    int8: float  # the share of multiply-adds that INT8 does
    searched: Verdict | None = None  # on the images that the search may see
    held_out: Verdict | None = None  # on those that it may not
    p10_ms: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    over: str | None = None  # the trial that this one varies in where its pairs stand: it must be faster than that

    @property
    def time(self) -> float:
        """What finalists are ranked by: p10 in ms, which other load on the machine moves least; the model's cost without it."""
        return self.cost if self.p10_ms is None else self.p10_ms

    @property
    def accurate(self) -> bool:
        """Whether every verdict that there is accepts it."""
        return all(verdict.accepted for verdict in (self.searched, self.held_out) if verdict is not None)


class Sensitivity(Frozen, frozen=True):
    """What one unit of layers does to the logits: SNR in dB where it alone is INT8, and where it alone is not."""

    unit: str
    keep: tuple[str, ...]  # what a recipe's `keep` must say to leave it out
    alone: float
    left_out: float
    share: float  # of the multiply-adds


class Half:
    """Every second image, from `first` (0 or 1): folders list their images by class, so that both halves hold every class."""

    def __init__(self, images: LabeledImages, first: int) -> None:
        self._images, self._first = images, first
        self.count = len(range(first, images.count, 2))
        self.classes, self.sha256 = images.classes, images.sha256

    @property
    def labels(self) -> Labels | None:
        labels = self._images.labels
        return None if labels is None else labels[self._first :: 2]

    def of(self, values: Array) -> Array:
        """The rows of an array over all images that are this half's."""
        return values[self._first :: 2]

    def batches(self, size: int) -> Iterator[Float]:
        size += size % 2
        for batch in self._images.batches(2 * size):
            if len(batch) > self._first:
                yield np.ascontiguousarray(batch[self._first :: 2])
