"""Answers: the reference's logits on the images of `[accept]`, in the compact form that an engine carries.

Each image's logits are int16 steps of 1/32767 of the largest magnitude among them: an error of at most 1.5e-5 of it, some 96 dB
below. The order of the first five is kept exactly, so that top-1 and top-5 are what they were. Each image is known by the hash
of its bytes: a part of the images, in another order, is recognized as well.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from toolkit.disk.files import DAMAGED_ARCHIVE
from toolkit.errors import EngineError
from toolkit.images.dataset import DAMAGED_ARRAY
from toolkit.types import Float

TOP = 5
STEPS = 32767
ARRAYS = {"steps": "<i2", "scale": "<f4", "top": "<i4", "digests": "<u8"}
MOST, RATIO = 1 << 28, 50  # bytes of an array, or so many times those that it takes in the file where that is more


class StoredAnswers(NamedTuple):
    """`digests` uint64 [n]: the first 8 bytes of each image's SHA-256; `logits` float32 [n, classes], as stored."""

    digests: NDArray[np.uint64]
    logits: Float

    def of(self, digests: NDArray[np.uint64]) -> tuple[NDArray[np.int64], Float]:
        """Which of the images `digests` (their positions, int64 [m]) have an answer here, and those answers [m, classes]."""
        place = {int(digest): row for row, digest in enumerate(self.digests)}
        rows = [(index, place[int(digest)]) for index, digest in enumerate(digests) if int(digest) in place]
        found = np.array(rows, np.int64).reshape(-1, 2)
        return found[:, 0], self.logits[found[:, 1]]


def encode(logits: Float, digests: NDArray[np.uint64]) -> bytes:
    """A .npz, deflated, with fixed dates: the same answers always give the same bytes. `logits` are float32 [n, classes]."""
    scale = np.abs(logits).max(axis=1, keepdims=True).astype(np.float32)
    scale[scale == 0] = 1
    arrays = {
        "steps": np.rint(logits / scale * STEPS),
        "scale": scale[:, 0],
        "top": np.argsort(-logits, axis=1, kind="stable")[:, :TOP],
        "digests": digests,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array.astype(ARRAYS[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def decode(data: bytes) -> StoredAnswers:
    """Raises EngineError: other arrays than `encode` writes, values that no answer has, or shapes that do not belong together."""
    again = "Build the engine again"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            steps, scale, top, digests = (_array(archive, name, kind) for name, kind in ARRAYS.items())
    except (*DAMAGED_ARRAY, *DAMAGED_ARCHIVE) as error:
        raise EngineError(f"the stored answers cannot be read: {error}", remedy=again) from error
    count, columns = steps.shape if steps.ndim == 2 else (0, 0)
    whole = scale.shape == (count,) and top.shape == (count, min(TOP, columns)) and digests.shape == (count,)
    if columns == 0 or not whole or not np.isfinite(scale).all() or ((top < 0) | (top >= columns)).any():
        raise EngineError("the stored answers do not belong together", remedy=again)
    logits: Float = (steps.astype(np.float32) * (scale[:, None] / np.float32(STEPS))).astype(np.float32, copy=False)
    return StoredAnswers(digests, _in_order(logits, top))


def _array(archive: zipfile.ZipFile, name: str, kind: str) -> NDArray[Any]:
    """One of the arrays, of the same type that it is written in. Raises what a damaged archive or header does, and ValueError."""
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > max(MOST, RATIO * member.compress_size):
        raise ValueError(f"'{name}' would take {member.file_size:,} bytes, and is stored in {member.compress_size:,}")
    stream = io.BytesIO(archive.read(member))
    npy.read_magic(stream)
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if dtype != np.dtype(kind):
        raise ValueError(f"'{name}' is of {dtype}, not {np.dtype(kind)}")
    return np.frombuffer(stream.getbuffer()[stream.tell() :], dtype).reshape(shape)


def _in_order(logits: Float, top: NDArray[np.int32]) -> Float:
    """The same, where rounding made equal what was not: the first five, in their order, stand above all others."""
    rows = np.arange(len(logits))
    rest = logits.copy()
    rest[rows[:, None], top] = -np.inf
    floor = rest.max(axis=1)
    for rank in range(top.shape[1] - 1, -1, -1):
        own = logits[rows, top[:, rank]]
        above = np.where(np.isneginf(floor), own, np.nextafter(floor, np.float32(np.inf), dtype=np.float32))
        logits[rows, top[:, rank]] = floor = np.maximum(own, above)
    return logits
