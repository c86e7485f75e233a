"""Bounds: whether an encoded picture is small enough to be decoded, told from its head alone."""

from __future__ import annotations

import io
import math

from PIL import Image

from toolkit.images.picture import DAMAGED, formats, scaled, unreadable

BEYOND = 1 << 62  # more than Pillow itself would open


def pixels_of(encoded: bytes, resize: int | None = None) -> int:
    """Width times height as the file's head says them, or, if that is more, once its shorter side is `resize`: a strip of a few
    pixels may grow beyond any photograph. Nothing is decoded. Raises DataError where it is no picture."""
    try:
        with Image.open(io.BytesIO(encoded), formats=formats()) as image:
            grown = scaled(image.size, resize, "an encoded picture") if resize and min(image.size) else image.size
            return max(math.prod(image.size), math.prod(grown))
    except Image.DecompressionBombError:
        return BEYOND
    except DAMAGED as error:
        raise unreadable("an encoded picture", error) from error
