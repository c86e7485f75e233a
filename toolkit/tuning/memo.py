"""Memo: what a search has found out of a graph, kept as it goes, so that one that was stopped goes on where it was.

An answer is kept under all that it depends on: the graph itself, the images and their true answers, the target whose rounding is
predicted, this version of the toolkit, which predicts it, that of ONNX Runtime, and the CPU, which may saturate. So nothing is
taken over that another search would have found otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
import numpy as np
import onnx_ir as ir

import toolkit
from toolkit import cpu
from toolkit.backends.onnxruntime.backend import library
from toolkit.disk import cache
from toolkit.disk.files import sha256_bytes
from toolkit.onnxfile import serialize

Found = TypeVar("Found")


class Memo:
    """`found` counts the answers that were there before this search."""

    def __init__(self, target: str) -> None:
        self._head = f"{target} toolkit {toolkit.__version__} onnxruntime {library().__version__} {cpu.name()}".encode()
        self.found = 0
        self._own: set[str] = set()  # a search asks for some graphs twice

    def once(self, kind: type[Found], asked: Iterable[Any], answer: Callable[[], Found]) -> Found:
        """`answer()`, or what it gave an earlier search that asked the same; `kind` is its type."""
        parts = [self._head, kind.__name__.encode(), *(_bytes(part) for part in asked)]
        name = sha256_bytes(*(f"{len(part)}:".encode() + part for part in parts))
        if (kept := cache.find("trials", name)) is not None:
            try:
                known = msgspec.msgpack.decode(kept, type=kind)
            except msgspec.MsgspecError:  # of a toolkit whose verdicts had other fields
                pass
            else:
                self.found += name not in self._own
                return known
        found = answer()
        self._own.add(name)
        cache.keep("trials", name, msgspec.msgpack.encode(found))
        return found


def _bytes(part: Any) -> bytes:
    """What the part is, as bytes that differ where it does."""
    if isinstance(part, ir.Model):
        return sha256_bytes(serialize(part)).encode()
    if isinstance(part, np.ndarray):
        return f"{part.shape} {part.dtype} {sha256_bytes(np.ascontiguousarray(part).tobytes())}".encode()
    return msgspec.msgpack.encode(part)
