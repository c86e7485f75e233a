"""INT8 weights: symmetric, one scale an output channel.

On a CPU without VNNI or its like, U8S8 kernels (vpmaddubsw) add two neighboring products in 16 bits: 255 * (q0 + q1) passes
32767 where |q0 + q1| > 128, and saturates in silence. The usual remedy gives every weight 7 bits. `pairs` keeps 8 bits and
binds only what can go wrong: no two weights that a kernel adds in 16 bits may sum to more than 128, whatever the activations.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.types import Array, Float

Scale = Literal["auto", "absmax", "mse"]  # auto, where nobody has chosen: absmax
Room = Literal["full", "half", "pairs"]
PAIR = 128  # the largest |q0 + q1| whose product with 255 fits 16 bits
SHRINKS = np.linspace(1.0, 0.4, 31)


def quantize_weight(
    array: Array, axis: int, scale: Scale = "absmax", room: Room = "full", *, least: Array | float = 0.0
) -> tuple[NDArray[np.int8], Float]:
    """A float weight -> int8 of the same shape and float32 scales [channels along `axis`]: weight ~ q * scale.

    `absmax` is the smallest scale that cuts nothing; `mse` the one of 31 below it with the least squared error, a channel.
    `room`: -127 .. 127, `half` of it, or `pairs` (see above). An output channel of zeros has scale 1. No scale is below
    `least`, one number or one a channel.
    """
    rows = rows_of(array, axis)
    limit = limit_of(room)
    step = np.abs(rows).max(axis=1) / limit
    if room == "pairs":
        step = np.maximum(step, np.abs(rows[:, 0::2] + rows[:, 1::2]).max(axis=1) / PAIR)
    step = np.where(step < np.finfo(np.float32).tiny, 1.0, step).astype(np.float32)
    if scale == "mse":
        step = _least_error(rows, step, limit, room == "pairs")
    step = np.maximum(step, least).astype(np.float32)
    return unrows(_round(rows, step, limit, room == "pairs"), array, axis), step


def limit_of(room: Room) -> int:
    """The largest magnitude of a weight."""
    return 63 if room == "half" else 127


def fits_16_bits(quantized: Array, axis: int) -> bool:
    """Whether no two of these int8 weights that a kernel adds in 16 bits can overflow there: what `pairs` sees to."""
    rows = rows_of(quantized, axis)
    return bool((np.abs(rows[:, 0::2] + rows[:, 1::2]) <= PAIR).all())


def _least_error(rows: Array, widest: Float, limit: int, pairs: bool) -> Float:
    best, least = widest, np.full(len(rows), np.inf)
    for shrink in SHRINKS:
        step = (widest * shrink).astype(np.float32)
        error = ((_round(rows, step, limit, pairs) * step[:, None].astype(np.float64) - rows) ** 2).sum(axis=1)
        best, least = np.where(error < least, step, best), np.minimum(error, least)
    return best


def _round(rows: Array, step: Float, limit: int, pairs: bool) -> NDArray[np.int8]:
    quantized = np.clip(np.rint(rows / step[:, None]), -limit, limit).astype(np.int16)
    if pairs:  # both give way by as much: the nearest pair that has room
        first, second = quantized[:, 0::2], quantized[:, 1::2]
        excess = np.abs(first + second) - PAIR
        sign = np.sign(first + second)
        over = excess > 0
        first -= np.where(over, sign * (excess // 2), 0).astype(np.int16)
        second -= np.where(over, sign * (excess - excess // 2), 0).astype(np.int16)
    return quantized.astype(np.int8)


def rows_of(array: Array, axis: int) -> NDArray[np.float64]:
    """[outputs, K], K even, in the order in which kernels add: taps outside, input channels inside; 0 fills an odd K."""
    moved = np.moveaxis(array.astype(np.float64), axis, 0)
    if moved.ndim > 2:
        moved = np.moveaxis(moved, 1, -1)
    rows = moved.reshape(len(moved), -1)
    return np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))


def unrows(rows: NDArray[np.int8], like: Array, axis: int) -> NDArray[np.int8]:
    shape = [like.shape[axis], *(size for index, size in enumerate(like.shape) if index != axis % like.ndim)]
    if like.ndim > 2:
        shape = [shape[0], *shape[2:], shape[1]]
    moved = rows[:, : int(np.prod(shape[1:]))].reshape(shape)
    if like.ndim > 2:
        moved = np.moveaxis(moved, -1, 1)
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis))
