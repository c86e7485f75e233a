"""Compensated rounding: each weight is rounded so that the rest of its row makes up for what the ones before it lost.

Rounding to the nearest step is best for each weight alone, and not for the layer's output, whose squared error over images is
e^T H e for a row's rounding error e and the inputs' covariance H. Column by column, a weight is rounded and the error that it
leaves is spread over the weights still to come, as the least-squares solution has it (Frantar et al., "GPTQ", 2022,
arXiv:2210.17323, after Hassibi and Stork's Optimal Brain Surgeon). The mean of the inputs is left out of H: what rounding shifts
on average is for `bias.py`. Steps stay as they are, and so does the limit on pairs (`weights.py`), which costs little here: what
a weight must give up, its neighbors take over.

H is block-diagonal: input channels in groups of at most `BLOCK` weights. The fewer positions it was measured at, the more is
added to its diagonal, which ends in rounding to nearest.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from toolkit.graph.channels import Real
from toolkit.graph.weights import PAIR, Room, limit_of, rows_of, unrows
from toolkit.types import Array, Float

BLOCK = 512
DAMPING = 0.01  # of the mean of H's diagonal
SHRINK = 0.5  # of the diagonal, times columns a position
PANEL = 64  # columns that are spread to those behind at once


def blocks(channels: int, taps: int) -> Iterator[Array]:
    """Column indices [k] of each block, in the order of `rows_of`: taps outside, channels inside; pairs stay together."""
    order = np.arange(channels * taps).reshape(taps, channels)
    if order.size <= BLOCK:
        yield order.ravel()
    elif channels % 2:
        yield from (order.ravel()[start : start + BLOCK] for start in range(0, order.size, BLOCK))
    else:
        step = max(2, BLOCK // taps // 2 * 2)
        yield from (order[:, start : start + step].ravel() for start in range(0, channels, step))


class Covariance:
    """H of one layer's inputs, a block at a time; mutable while rows come in.

    Rows are counted from the mean of the first ones: a covariance does not change by that, and float32 would lose one that is
    small beside the squares of the mean.
    """

    def __init__(self, groups: int, channels: int, taps: int) -> None:
        self.columns = tuple(blocks(channels, taps))
        self._squares = [np.zeros((groups, len(block), len(block)), np.float32) for block in self.columns]
        self._sum = np.zeros((groups, channels * taps))
        self._origin: Float | None = None
        self._count = 0
        self.groups = groups

    def add(self, rows: Float) -> None:
        """`rows` [positions, groups, K]: what the layer multiplies."""
        if self._origin is None:
            self._origin = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows = rows - self._origin
        self._count += len(rows)
        self._sum += rows.sum(axis=0, dtype=np.float64)
        for total, block in zip(self._squares, self.columns, strict=True):
            part = rows[:, :, block].transpose(1, 0, 2)
            total += part.transpose(0, 2, 1) @ part

    def of(self, index: int) -> Real:
        """[groups, k, k] of one block, damped: positive definite."""
        mean = self._sum[:, self.columns[index]] / self._count
        found = self._squares[index].astype(np.float64) / self._count - mean[:, :, None] * mean[:, None, :]
        k = found.shape[-1]
        diagonal = np.maximum(np.einsum("gkk->gk", found), 0)
        level = diagonal.mean(axis=1, keepdims=True)
        more = DAMPING * np.where(level > 0, level, 1.0) + diagonal * (SHRINK * k / self._count)
        found[:, np.arange(k), np.arange(k)] = diagonal + more
        return np.asarray(found)


def compensate(weight: Array, axis: int, step: Float, covariance: Covariance, room: Room = "full") -> NDArray[np.int8]:
    """A weight -> int8 of the same shape, at the steps [outputs] of `quantize_weight`."""
    rows = rows_of(weight, axis)
    groups = covariance.groups
    columns = rows.reshape(groups, -1, rows.shape[1]).transpose(0, 2, 1)
    quantized = np.zeros(columns.shape, np.int8)
    steps = step.astype(np.float64).reshape(groups, -1)
    for index, block in enumerate(covariance.columns):
        quantized[:, block] = _spread(columns[:, block], covariance.of(index), steps, limit_of(room), room == "pairs")
    return unrows(quantized.transpose(0, 2, 1).reshape(rows.shape), weight, axis)


def _spread(columns: Real, covariance: Real, step: Real, limit: int, pairs: bool) -> NDArray[np.int16]:
    """Round [groups, k, outputs] column by column, each in one stretch of memory; what is lost moves on to those behind."""
    upper = np.linalg.cholesky(np.linalg.inv(covariance)).transpose(0, 2, 1)
    columns, k = np.array(columns, order="C"), columns.shape[1]
    quantized = np.zeros(columns.shape, np.int16)
    for start in range(0, k, PANEL):
        stop = min(start + PANEL, k)
        lost = np.zeros((len(columns), stop - start, columns.shape[2]))
        for j in range(start, stop):
            q = np.clip(np.rint(columns[:, j] / step), -limit, limit)
            if pairs and j % 2:
                before = quantized[:, j - 1]
                q = np.clip(q, -PAIR - before, PAIR - before)
            quantized[:, j] = q
            lost[:, j - start] = (columns[:, j] - q * step) / upper[:, j, j][:, None]
            columns[:, j + 1 : stop] -= upper[:, j, j + 1 : stop, None] * lost[:, None, j - start]
        columns[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ lost
    return quantized
