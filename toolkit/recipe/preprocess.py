"""Preprocess: how a picture becomes an input. It travels with the engine."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from toolkit.types import Frozen

MOST, MOST_PIXELS = 1 << 14, 1 << 26  # pixels of a side, and of a picture: as float32 RGB it takes 0.8 GB
TINY, HUGE = 2.0**-126, 2.0**127  # float32 holds them, and what lies between, in full precision


class Preprocess(Frozen, frozen=True):
    """How a picture becomes an input: resize, center crop, value * scale, then (value - mean) / std, per channel."""

    size: tuple[int, int] = (224, 224)  # height, width
    resize: int | None = None  # shorter side before the center crop; absent: straight to size
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    color: Literal["RGB", "BGR", "L"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    exif: bool = False  # turn a picture as its EXIF orientation says; torchvision's loader takes it as it is stored
    inside: bool = False  # the engine takes uint8 pixels [N, H, W, C] and does all that comes after the crop itself
    draft: bool = False  # JPEGs are decoded at 1/2, 1/4 or 1/8 where twice the size asked for is left: faster, other pixels

    def __post_init__(self) -> None:
        channels = self.channels
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"`mean` and `std` need {channels} value(s) for color {self.color}")
        if not 1 <= min(self.size) <= max(self.size) <= MOST or min(self.std) <= 0:
            raise ValueError(f"`size` must be 1 to {MOST}, and `std` above 0")
        if math.prod(self.size) > MOST_PIXELS:
            raise ValueError(f"`size` must have at most {MOST_PIXELS:,} pixels")
        if self.scale == 0 or not all(map(math.isfinite, (self.scale, *self.mean, *self.std))):
            raise ValueError("`scale`, `mean` and `std` must be finite, and `scale` not 0: no picture would be seen")
        largest = [255 * abs(self.scale) + abs(mean) for mean in self.mean]  # of any pixel, before the division
        values = [abs(self.scale), *self.std, *largest, *(one / std for one, std in zip(largest, self.std, strict=True))]
        if not all(TINY <= value <= HUGE for value in values):
            raise ValueError("`scale`, `mean` and `std` give pixels that float32 cannot hold: infinite, or no numbers")
        if self.resize is not None and self.resize < max(self.size):
            square = [self.resize, self.resize]
            remedy = f"set `size` too, such as size = {square}, or leave `resize` out"
            raise ValueError(f"`resize` {self.resize} is smaller than the crop, size = {list(self.size)}: {remedy}")

    @property
    def channels(self) -> int:
        return 1 if self.color == "L" else 3

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image as the network sees it."""
        height, width = self.size
        return (height, width, self.channels) if self.layout == "NHWC" else (self.channels, height, width)

    @property
    def pixel_shape(self) -> tuple[int, int, int]:
        """The shape of one image as an engine takes it where preprocessing is `inside`."""
        return (*self.size, self.channels)

    @property
    def outside(self) -> Preprocess:
        """The same values, computed before the engine: what its reference takes, and what calibration sees."""
        return msgspec.structs.replace(self, inside=False)

    def card(self) -> bytes:
        """What decides the values of a preprocessed image, for hashes: not where they are computed, nor options that are off."""
        values = {key: value for key, value in msgspec.to_builtins(self).items() if key != "inside"}
        if not self.draft:
            del values["draft"]
        return msgspec.json.encode(values)
