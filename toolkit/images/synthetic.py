"""Seeded synthetic pictures, for what needs inputs of the right kind and no real ones: the check of an export."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.images.dataset import Images
from toolkit.recipe import Preprocess
from toolkit.types import Array

WHERE = "synthetic images"
CELLS = (4, 16, 64)  # a side, of the grids that are added: the falling spectrum of photographs


def synthetic(preprocess: Preprocess, count: int, seed: int = 0) -> Images:
    """`count` pictures as uint8 [H, W] or [H, W, 3], the same ones everywhere, which go through `preprocess` like real ones.

    Each is the sum of random grids from coarse to fine, stretched over 0..255: smooth areas, edges and the extremes all occur.
    """
    random = np.random.default_rng(seed)
    side = max(preprocess.resize or 0, *preprocess.size)
    channels = () if preprocess.color == "L" else (3,)
    pictures: list[Any] = [_picture(random, side, channels) for _ in range(count)]
    return Images(WHERE, pictures, preprocess)


def _picture(random: np.random.Generator, side: int, channels: tuple[int, ...]) -> Array:
    total = np.zeros((side, side, *channels))
    for cells in CELLS:
        index = np.arange(side) * cells // side
        total += random.standard_normal((cells, cells, *channels))[index][:, index]
    low, high = total.min(), total.max()
    pixels: Array = np.round(255 * (total - low) / max(high - low, 1e-9)).astype(np.uint8)
    return pixels
