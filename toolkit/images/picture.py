"""One picture -> the float32 array that a network takes, and back. Pillow and numpy only.

Preprocessing agrees with torchvision's Resize (antialiased, on Pillow images), CenterCrop, ToTensor and Normalize; like them it
takes the pixels as they are stored and does not look at an EXIF orientation.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.errors import DataError, InputError
from toolkit.recipe import Preprocess
from toolkit.types import Array, Float

MOST_PIXELS = 1 << 27  # a resized picture is 3 bytes a pixel: a strip of 1 x 20,000 must not take the memory of its host
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# What Pillow's decoders raise on damaged files; OSError covers truncation and files that are no image.
_DAMAGED = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


def preprocess(picture: Any, how: Preprocess) -> Float:
    """One picture -> float32 `how.input_shape`: ((value * scale) - mean) / std of the resized, cropped picture.

    `picture` is a path, a Pillow image, or uint8 [H, W] or [H, W, 3] in RGB order. `mean` and `std` are in the order of `color`.
    Raises DataError for a file that cannot be read, InputError for anything else.
    """
    image = open_picture(picture, how.color)
    height, width = how.size
    kernel = _FILTERS[how.interpolation]
    if how.resize is None:
        image = image.resize((width, height), kernel)
    else:
        where = str(picture) if isinstance(picture, (str, Path)) else "a picture"
        image = image.resize(_scaled(image.size, how.resize, where), kernel)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    pixels: Float = np.asarray(image, np.float32).reshape(height, width, how.channels)
    if how.color == "BGR":
        pixels = pixels[..., ::-1]
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    pixels = (pixels * np.float32(how.scale) - mean) / std
    return np.ascontiguousarray(pixels if how.layout == "NHWC" else pixels.transpose(2, 0, 1))


def as_list(pictures: Any) -> list[Any]:
    """One picture or many -> a list. An array [H, W] or [H, W, 3] is one; with a further axis in front it is many."""
    if isinstance(pictures, (str, Path, Image.Image)):
        return [pictures]
    if isinstance(pictures, np.ndarray) and (pictures.ndim < 3 or (pictures.ndim == 3 and pictures.shape[2] == 3)):
        return [pictures]
    if not isinstance(pictures, Iterable):
        raise InputError(f"{type(pictures).__name__} is no picture", remedy="Give a path, a Pillow image or a uint8 array")
    many = list(pictures)
    if not many:
        raise InputError("there is no picture to classify", remedy="Give at least one")
    return many


def _scaled(size: tuple[int, int], wanted: int, where: str) -> tuple[int, int]:
    """(width, height) with the shorter side `wanted`; the longer one is truncated, as torchvision does."""
    short, long = sorted(size)
    grown = int(wanted * long / short)
    if wanted * grown > MOST_PIXELS:
        what = f"{where} of {size[0]} x {size[1]} pixels would become {wanted} x {grown} before the crop"
        raise DataError(what, remedy="Cut it to a shape nearer to a square")
    return (wanted, grown) if size[0] == short else (grown, wanted)


def open_picture(picture: Any, color: str) -> Image.Image:
    """Any picture as a Pillow image of mode L or RGB."""
    mode = "L" if color == "L" else "RGB"
    if isinstance(picture, (str, Path)):
        try:
            with Image.open(picture) as image:
                return _convert(image, mode)
        except FileNotFoundError:
            raise DataError(f"the image {picture} does not exist") from None
        except _DAMAGED as error:
            raise DataError(f"{picture} is no image that can be read: {error}", remedy="Replace it or take it away") from error
    if isinstance(picture, np.ndarray):
        shape = picture.shape
        if picture.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
            raise InputError(f"a picture is uint8 [H, W] or [H, W, 3], not {picture.dtype} {list(shape)}")
        return _convert(Image.fromarray(picture), mode)
    if isinstance(picture, Image.Image):
        return _convert(picture, mode)
    raise InputError(f"{type(picture).__name__} is no picture", remedy="Give a path, a Pillow image or a uint8 array")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # Pillow would cut values off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        where = getattr(image, "filename", "") or "the picture"
        raise DataError(f"{where} has pixels of mode {image.mode}, whose range is unknown", remedy="Save it as 8 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; a direct conversion warns
    return image.convert(mode)


def restore(item: Array, how: Preprocess) -> Image.Image:
    """A preprocessed image float32 `how.input_shape` -> the picture of mode L or RGB that it came from, after its crop."""
    pixels = item if how.layout == "NHWC" else item.transpose(1, 2, 0)
    pixels = (pixels * np.asarray(how.std) + np.asarray(how.mean)) / how.scale
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if how.color == "L":
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1] if how.color == "BGR" else pixels))
