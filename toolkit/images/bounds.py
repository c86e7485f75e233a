"""Bounds: whether an encoded picture is small enough to be decoded, told from its head alone."""

from __future__ import annotations

import io

from PIL import Image

from toolkit.errors import DataError
from toolkit.images.picture import _DAMAGED, _formats

BEYOND = 1 << 62  # more than Pillow itself would open


def pixels_of(encoded: bytes) -> int:
    """Width times height as the file's head says them; nothing is decoded. Raises DataError where it is no picture."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_formats()) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        return BEYOND
    except _DAMAGED as error:
        raise DataError(f"an encoded picture is no image that can be read: {error}") from error
