"""Bounds: whether an encoded picture is small enough to be decoded, told from its head alone."""

from __future__ import annotations

import io

from PIL import Image

from toolkit.images.picture import DAMAGED, formats, unreadable

BEYOND = 1 << 62  # more than Pillow itself would open


def pixels_of(encoded: bytes) -> int:
    """Width times height as the file's head says them; nothing is decoded. Raises DataError where it is no picture."""
    try:
        with Image.open(io.BytesIO(encoded), formats=formats()) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        return BEYOND
    except DAMAGED as error:
        raise unreadable("an encoded picture", error) from error
