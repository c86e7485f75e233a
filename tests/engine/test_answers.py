"""Stored answers that no build wrote: each is refused in a sentence, before it takes memory, and none is half believed."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from tests.fuzz.bounds import bounds
from toolkit.engine.answers import decode, encode
from toolkit.errors import EngineError

N, CLASSES = 3, 5
GOOD = {
    "steps": np.zeros((N, CLASSES), "<i2"), "scale": np.ones(N, "<f4"),
    "top": np.tile(np.arange(CLASSES, dtype="<i4"), (N, 1)), "digests": np.arange(N, dtype="<u8"),
}  # fmt: skip


def archive(arrays: dict[str, Any], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An answers.npz: arrays, or the bytes of a member as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, array in arrays.items():
            member = io.BytesIO()
            if isinstance(array, bytes):
                member.write(array)
            else:
                np.save(member, array, allow_pickle=True)
            file.writestr(f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def header(kind: str, shape: tuple[int, ...]) -> bytes:
    """A .npy of no values at all."""
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def test_what_a_build_writes_is_read() -> None:
    assert decode(archive(GOOD)).logits.shape == (N, CLASSES)
    assert decode(encode(np.ones((0, CLASSES), np.float32), np.zeros(0, np.uint64))).logits.shape == (0, CLASSES)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": header("<i2", (1 << 40, 5))},
        {"steps": header("<i2", (-1, 5))},
        {"steps": header("<i2", (1 << 70, 5))},
        {"steps": b"\x93NUMPY\1\0\xe8\x03" + b"(" * 999 + b"\n"},
        {"steps": b"\x93NUMPY\2\0\xf0\xff\xff\xff"},
        {"steps": b"words"},
        {"steps": np.zeros((N, CLASSES), "<f4")},
        {"steps": np.full((N, CLASSES), "x")},
        {"steps": np.zeros((N, CLASSES), "c8")},
        {"steps": np.zeros((N, CLASSES), [("a", "i4")])},
        {"steps": np.full((N, CLASSES), None)},
        {"steps": np.zeros((), "<i2")},
        {"steps": np.zeros((N, 0), "<i2"), "top": np.zeros((N, 0), "<i4")},
        {"scale": np.full(N, np.nan, "<f4")},
        {"scale": np.full(N, np.inf, "<f4")},
        {"top": np.full((N, CLASSES), CLASSES, "<i4")},
        {"top": np.full((N, CLASSES), -1, "<i4")},
        {"top": np.zeros((N, CLASSES), "<f4")},
        {"digests": np.full(N, np.nan)},
        {"digests": np.array(["a", "b", "c"])},
        {"digests": np.arange(N + 1, dtype="<u8")},
    ],
    ids=range(21),
)
def test_other_arrays_are_refused(change: dict[str, Any]) -> None:
    with bounds(), pytest.raises(EngineError, match="the stored answers"):
        decode(archive(GOOD | change))


def test_a_missing_array_is_refused() -> None:
    with pytest.raises(EngineError, match=r"the stored answers cannot be read: .*scale"):
        decode(archive({name: array for name, array in GOOD.items() if name != "scale"}))


def test_zeros_by_the_gigabyte_are_refused_unread() -> None:
    """Deflated they are a thousandth of it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("steps.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    with bounds(), pytest.raises(EngineError, match="would take 314,572,800 bytes, and is stored in"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_in_the_archive_is_refused(method: int) -> None:
    """Each compression has an error of its own."""
    whole, refused = archive(GOOD, method), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        try:
            decode(bytes(damaged))
        except EngineError:
            refused += 1
    assert refused > len(whole) // 2
