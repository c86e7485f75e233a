"""A graph as an ONNX file, and whether all of such a file's weights are in it. The latter needs no package but Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

# Where tensors lie in ONNX's messages: message -> number of a field -> the message that it holds. `elsewhere` is the entry of a
# tensor that says in which file its values are.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "elsewhere"},
}


def is_whole(data: bytes) -> bool:
    """Whether no tensor of an ONNX file is stored in another one. Bytes that are no ONNX file are whole.

    Where a model comes as bytes, ONNX Runtime and OpenVINO look for such a file in the current folder: it may be anything.
    """
    if b"location" not in data:  # the key by which the other file is named
        return True
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, start, stop = waiting.pop()
        if kind == "elsewhere":
            return False
        inner = _FIELDS[kind]
        waiting += [(inner[number], begin, end) for number, begin, end in _parts(data, start, stop) if number in inner]
    return True


def _parts(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of each field that has a length, in the protobuf message `data[start:stop]`; up to what is damaged."""
    at = start
    while at < stop:
        tag, at = _varint(data, at, stop)
        kind, size = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)  # groups (3 and 4) are looked into as if they were not there
        if kind in (0, 2):
            value, at = _varint(data, at, stop)
            size = value if kind == 2 else 0
        if at + size > stop or kind > 5:
            return
        if kind == 2:
            yield (tag & 0xFFFFFFFF) >> 3, at, at + size  # as protobuf takes it, which drops higher bits
        at += size


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """The number at `at`, and where what follows it begins: beyond `stop` where it has no end."""
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    return 0, stop + 1


def serialize(model: ir.Model) -> bytes:
    """The same graph always gives the same bytes."""
    import onnx_ir as ir

    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data
