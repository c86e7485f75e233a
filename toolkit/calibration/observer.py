"""Observer: a graph that puts out the values of the tensors to calibrate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.calibration.pieces import Piece, in_pieces, write_watched
from toolkit.disk.drafts import scratch
from toolkit.errors import CalibrationError
from toolkit.types import Array, Float, Target

if TYPE_CHECKING:
    import onnx_ir as ir

_ALIGNED = 64  # bytes


class Observer:
    """The graph, live in ONNX Runtime in pieces that end with a watched tensor. Each thread takes a walk of its own through it.

    In pieces, since values are counted while they are still in the cache, and then make room: a whole image's do not fit there,
    and memory that nobody touched lately costs as much to write and read as its values cost to count.
    """

    def __init__(self, graph: ir.Model, tensors: Sequence[str], threads: int) -> None:
        known = {value.name for value in (*graph.graph.inputs, *(v for node in graph.graph for v in node.outputs))}
        missing = [name for name in tensors if name not in known]
        if missing:
            remedy = "Watch the tensors that toolkit.graph.qdq.watched names"
            raise CalibrationError(f"the graph has no tensor '{missing[0]}' to watch", remedy=remedy)
        self._input = graph.graph.inputs[0].name or ""
        self._tensors = set(tensors)
        self._shape = tuple(graph.graph.inputs[0].shape or ())[1:]
        self._pieces, self._constants = _open(graph, [name for name in tensors if name != self._input], threads)

    def check(self, image: Float) -> None:
        """Raises CalibrationError for an image [1, *input shape] of another shape."""
        shape = image.shape[1:]
        if len(shape) != len(self._shape) or any(a != b for a, b in zip(shape, self._shape, strict=True) if isinstance(b, int)):
            raise CalibrationError(f"the graph takes images of {list(self._shape)}, not {list(shape)}")

    def walk(self) -> Walk:
        """A way through the graph for one thread at a time."""
        return Walk(self._pieces, self._input if self._input in self._tensors else None, self._constants)


class Walk:
    """[1, *input shape] -> the name and the values, in any order and shape, of each watched tensor, as the graph computes them.

    Values hold until the next are asked for. They are in two blocks of memory, which the pieces write alternately; each reads
    what the one before wrote. What nobody watches is there too: memory that ONNX Runtime asks the system for, image by image,
    costs more than to compute the values in it.
    """

    def __init__(self, pieces: Sequence[_Live], watched_input: str | None, constants: dict[str, Array]) -> None:
        self._pieces, self._input, self._constants = pieces, watched_input, constants
        self._shape: tuple[int, ...] = ()  # of the images that there is memory for
        self._bound: list[tuple[Any, list[Array]]] = []  # for each piece a binding, and where it has its session write

    def __call__(self, image: Float) -> Iterator[tuple[str, Array]]:
        if self._input is not None:
            yield self._input, image
        yield from self._constants.items()
        yield from self._again(image) if image.shape == self._shape else self._first(image)

    def _first(self, image: Float) -> Iterator[tuple[str, Array]]:
        """An image of another shape than the last: ONNX Runtime finds memory, from which we learn how much is needed."""
        here, layouts = dict[str, Array](), []
        for session, piece in self._pieces:
            values = session.run(list(piece.outputs), {piece.input: here.get(piece.input, image)})
            here = dict(zip(piece.outputs, values, strict=True))
            layouts.append([(value.shape, value.dtype) for value in values])
            yield from _watched(piece, values)
        self._bind(layouts)
        self._shape = image.shape

    def _bind(self, layouts: Sequence[_Layout]) -> None:
        blocks = [np.empty(max(map(_size, layouts[turn::2]), default=0), np.uint8) for turn in range(2)]
        here, self._bound = dict[str, Array](), []
        for index, ((session, piece), layout) in enumerate(zip(self._pieces, layouts, strict=True)):
            binding, before = session.io_binding(), here
            here = dict(zip(piece.outputs, _carve(blocks[index % 2], layout), strict=True))
            here |= {value: here[output] for value, output in piece.in_place.items()}
            if index:
                binding.bind_input(*_place(piece.input, before[piece.input]))
            for name, values in here.items():
                binding.bind_output(*_place(name, values))
            self._bound.append((binding, list(here.values())))

    def _again(self, image: Float) -> Iterator[tuple[str, Array]]:
        if self._pieces:
            self._bound[0][0].bind_input(*_place(self._pieces[0][1].input, image))
        for (session, piece), (binding, values) in zip(self._pieces, self._bound, strict=True):
            session.run_with_iobinding(binding)
            yield from _watched(piece, values)


def _watched(piece: Piece, values: Sequence[Array]) -> Iterator[tuple[str, Array]]:
    return ((name, value) for name, value in zip(piece.outputs.values(), values, strict=True) if name is not None)


def _place(name: str, values: Array) -> tuple[Any, ...]:
    """What ONNX Runtime's binding asks for."""
    return name, "cpu", 0, values.dtype, values.shape, values.ctypes.data


def _size(layout: _Layout) -> int:
    """The bytes that `_carve` needs."""
    return sum(math.prod(shape) * dtype.itemsize + _ALIGNED for shape, dtype in layout) + _ALIGNED


def _carve(block: Array, layout: _Layout) -> list[Array]:
    """Arrays of these shapes and types in `block`, one behind the other."""
    start, arrays = -block.ctypes.data % _ALIGNED, []
    for shape, dtype in layout:
        stop = start + math.prod(shape) * dtype.itemsize
        arrays.append(block[start:stop].view(dtype).reshape(shape))
        start = stop + -stop % _ALIGNED
    return arrays


def _open(graph: ir.Model, tensors: Sequence[str], threads: int) -> tuple[list[_Live], dict[str, Array]]:
    """A session for each piece, and what is constant. ONNX Runtime optimizes the graph once and whole; then it reads what it
    wrote, in pieces.
    """
    if not tensors:
        return [], {}
    settings, cpu = {"threads": threads, "spin": False}, Target("cpu")
    with scratch() as folder:
        path, optimized = folder / "watched.onnx", folder / "optimized.onnx"
        write_watched(graph, path, tensors)
        onnxruntime.session(str(path), cpu, settings, lean=True, optimized=optimized)
        pieces, constants = in_pieces(optimized)
        live = [onnxruntime.session(str(piece.path), cpu, settings, lean=True, as_is=True) for piece in pieces]
        return list(zip(live, pieces, strict=True)), constants


_Live = tuple[Any, Piece]  # a session and what it runs
_Layout = list[tuple[tuple[int, ...], np.dtype[Any]]]
