"""One picture -> the float32 array that a network takes, and back. Pillow and numpy only.

Preprocessing agrees with torchvision's Resize (antialiased, on Pillow images), CenterCrop, ToTensor and Normalize; like them it
takes the pixels as they are stored and looks at an EXIF orientation only where it is told to (`preprocess.exif`).
"""

from __future__ import annotations

import functools
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from toolkit.errors import DataError, InputError
from toolkit.images import memory
from toolkit.recipe import Preprocess
from toolkit.types import Array, Float

DRAFT_GAP = 2  # with `draft`, how many times the size that is asked for the decoder leaves at least
MOST_PIXELS = 1 << 27  # a resized picture is 3 bytes a pixel: a strip of 1 x 20,000 must not take the memory of its host
MOST_SCANS = 500  # of a JPEG: a progressive one has some ten, and scripts of jpegtran come to a hundred
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Pillow's formats that may be opened: others reach programs of their own (EPS starts Ghostscript), whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "PPM", "TIFF", "MPO", "JPEG2000", "AVIF")
# What Pillow's decoders raise on damaged files; OSError covers truncation and files that are no image.
DAMAGED = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
_GIVE = "Give a path, a Pillow image, or an array [H, W], [H, W, C] or [C, H, W]"


def preprocess(picture: Any, how: Preprocess) -> Array:
    """One picture -> float32 `how.input_shape`: ((value * scale) - mean) / std of the resized, cropped picture.

    With `how.inside` uint8 `how.pixel_shape`, the cropped picture itself: the rest is the engine's. `picture` is a path, an
    encoded file as bytes or opened for reading, a Pillow image, or an array or tensor [H, W], [H, W, C] or [C, H, W] of 1, 3 or 4
    channels, RGB, of uint8, 16 bits, or floats from 0 to 1. `mean` and `std` are in the order of `color`. Raises DataError for a
    file that cannot be read, InputError for anything else.
    """
    pixels = np.asarray(cropped(picture, how)).reshape(how.pixel_shape)
    return pixels if how.inside else normalized(pixels, how)


def cropped(picture: Any, how: Preprocess) -> Image.Image:
    """The picture as the network is to see it, before its values become floats: resized, then cropped."""
    least = (how.resize or max(how.size)) * DRAFT_GAP if how.draft else None
    image = open_picture(picture, how.color, how.exif, least)
    height, width = how.size
    kernel = _FILTERS[how.interpolation]
    if how.resize is None:
        return image.resize((width, height), kernel)
    where = str(picture) if isinstance(picture, (str, Path)) else "a picture"
    image = image.resize(scaled(image.size, how.resize, where), kernel)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def normalized(pixels: Array, how: Preprocess) -> Float:
    """uint8 `how.pixel_shape` -> float32 `how.input_shape`.

    Channel by channel, as NumPy is several times faster on a plane than along an axis of three values; the operations, and so the
    bits, are the same.
    """
    order = range(how.channels)[::-1] if how.color == "BGR" else range(how.channels)
    planes = np.empty((how.channels, *how.size), np.float32)
    for plane, source, mean, std in zip(planes, order, how.mean, how.std, strict=True):
        np.multiply(pixels[..., source], np.float32(how.scale), out=plane, dtype=np.float32)
        np.subtract(plane, np.float32(mean), out=plane)
        np.divide(plane, np.float32(std), out=plane)
    return np.ascontiguousarray(planes.transpose(1, 2, 0)) if how.layout == "NHWC" else planes


def pictures_of(pictures: Any, color: str = "RGB") -> Iterator[Any]:
    """One picture or many -> each in turn; an iterable is drawn from as they are asked for. Raises InputError.

    An array or tensor of a single picture's shape is one; with a further axis in front it is many.
    """
    if isinstance(pictures, (str, Path, Image.Image, bytes, bytearray, memoryview)) or hasattr(pictures, "read"):
        return iter([pictures])
    if memory.is_array(pictures):
        several = memory.split(pictures, gray=color == "L")
        pictures = [pictures] if several is None else several
    if isinstance(pictures, dict) or not isinstance(pictures, Iterable):
        raise InputError(f"{type(pictures).__name__} is not a picture", remedy=_GIVE)
    many = iter(pictures)
    try:
        first = next(many)
    except StopIteration:
        raise InputError("there is no picture to classify", remedy="Give at least one") from None
    return chain([first], many)


def scaled(size: tuple[int, int], wanted: int, where: str) -> tuple[int, int]:
    """(width, height) with the shorter side `wanted`; the longer one is truncated, as torchvision does."""
    short, long = sorted(size)
    grown = int(wanted * long / short)
    if wanted * grown > MOST_PIXELS:
        what = f"{where} of {size[0]} x {size[1]} pixels would become {wanted} x {grown} before the crop"
        raise DataError(what, remedy="Crop it to a shape nearer to a square")
    return (wanted, grown) if size[0] == short else (grown, wanted)


def open_picture(picture: Any, color: str, exif: bool = False, least: int | None = None) -> Image.Image:
    """Any picture as a Pillow image of mode L or RGB; with `exif` turned as its EXIF orientation says.

    With `least`, an encoded JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 whose shorter side has so many pixels.
    """
    mode = "L" if color == "L" else "RGB"
    if isinstance(picture, (str, Path, bytes, bytearray, memoryview)) or hasattr(picture, "read"):
        return _open_file(picture, mode, exif, least)
    if memory.is_array(picture):
        return _convert(Image.fromarray(memory.pixels_of(picture)), mode)
    if isinstance(picture, Image.Image):
        return _convert(ImageOps.exif_transpose(picture) if exif else picture, mode)
    raise InputError(f"{type(picture).__name__} is not a picture", remedy=_GIVE)


@functools.cache
def formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open_file(file: Any, mode: str, exif: bool, least: int | None) -> Image.Image:
    where = str(file) if isinstance(file, (str, Path)) else "an encoded picture"
    try:
        if isinstance(file, (str, Path)) and not stat.S_ISREG(os.stat(file).st_mode):
            raise DataError(f"{where} is not a regular file", remedy="Replace it or remove it")  # a pipe would be waited for
        if isinstance(file, (bytes, bytearray, memoryview)):
            file = io.BytesIO(file)
        with Image.open(file, formats=formats()) as image:
            _refuse_scans(image, where)
            if least is not None:
                image.draft(None, (least, least))
            return _convert(ImageOps.exif_transpose(image) if exif else image, mode)
    except FileNotFoundError:
        raise DataError(f"the image {where} does not exist") from None
    except DAMAGED as error:
        raise unreadable(where, error) from error


def _refuse_scans(image: Image.Image, where: str) -> None:
    """Raise DataError for a JPEG of more scans than any encoder writes: the whole picture is gone over for each, and a file of a
    megabyte may hold a hundred thousand."""
    if image.format not in ("JPEG", "MPO"):
        return
    stream: Any = image.fp  # type: ignore[attr-defined]
    place = stream.tell()
    stream.seek(0)
    count = stream.read().count(b"\xff\xda")  # inside a scan a byte of 255 is followed by a 0
    stream.seek(place)
    if count > MOST_SCANS:
        raise DataError(f"{where} is a JPEG of {count:,} scans", remedy="Save it again; a progressive JPEG has some ten")


def unreadable(where: str, error: BaseException) -> DataError:
    """Pillow's reason in one line. Of bytes in no known format it says the address of the object that holds them."""
    why = "it has none of the formats that are read here" if isinstance(error, UnidentifiedImageError) else str(error)
    return DataError(f"{where} cannot be read as an image: {why}", remedy="Replace it or remove it")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # Pillow would cut values off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        where = getattr(image, "filename", "") or "the picture"
        raise DataError(f"{where} has pixels of mode {image.mode}, whose range is unknown", remedy="Save it as 8 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colors; a direct conversion warns
    return image.convert(mode)


def restore(item: Array, how: Preprocess) -> Image.Image:
    """A preprocessed image float32 `how.input_shape` -> the picture of mode L or RGB that it came from, after its crop."""
    pixels = item if how.layout == "NHWC" else item.transpose(1, 2, 0)
    pixels = (pixels * np.asarray(how.std) + np.asarray(how.mean)) / how.scale
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if how.color == "L":
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1] if how.color == "BGR" else pixels))
