"""Watch: a graph that puts out the values of the tensors to calibrate, beside its own results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.backends import onnxruntime
from toolkit.errors import CalibrationError
from toolkit.onnxfile import expose_blocks, write_watched
from toolkit.types import Array, Float, Target

if TYPE_CHECKING:
    import onnx_ir as ir


class Watch:
    """The graph with the watched tensors as further outputs, live in ONNX Runtime. A thread takes a lane through it."""

    def __init__(self, graph: ir.Model, tensors: Sequence[str], threads: int) -> None:
        known = {value.name for value in (*graph.graph.inputs, *(v for node in graph.graph for v in node.outputs))}
        missing = [name for name in tensors if name not in known]
        if missing:
            remedy = "Watch the tensors that toolkit.graph.qdq.watched names"
            raise CalibrationError(f"the graph has no tensor '{missing[0]}' to watch", remedy=remedy)
        self._input = graph.graph.inputs[0].name
        self._tensors = tuple(dict.fromkeys(tensors))
        self._outputs = [name for name in self._tensors if name != self._input]  # an input needs no way out
        self._shape = tuple(graph.graph.inputs[0].shape or ())[1:]
        self._session, self._names = _open(graph, self._outputs, threads)

    def check(self, image: Float) -> None:
        """Raises CalibrationError for an image [1, *input shape] of another shape."""
        shape = image.shape[1:]
        if len(shape) != len(self._shape) or any(a != b for a, b in zip(shape, self._shape, strict=True) if isinstance(b, int)):
            raise CalibrationError(f"the graph takes images of {list(self._shape)}, not {list(shape)}")

    def lane(self) -> Callable[[Float], dict[str, Array]]:
        """A function for one thread at a time: [1, *input shape] -> each watched tensor's values, in any order and shape.

        The values lie where those of the first image lay: the next image overwrites them. Memory that is new to the process costs
        as much to touch as the values cost to count.
        """
        binding = self._session.io_binding()
        held: dict[str, Array] = {}
        bound = [()]

        def run(image: Float) -> dict[str, Array]:
            if image.shape != bound[0]:
                values = self._session.run(self._names, {self._input: image}) if self._outputs else []
                held.update(zip(self._outputs, values, strict=True))
                for name, value in zip(self._names, values, strict=True):
                    binding.bind_output(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
                bound[0] = image.shape
            elif self._outputs:
                binding.bind_input(self._input, "cpu", 0, image.dtype, image.shape, image.ctypes.data)
                self._session.run_with_iobinding(binding)
            return {name: held.get(name, image) for name in self._tensors}

        return run


def _open(graph: ir.Model, outputs: Sequence[str], threads: int) -> tuple[Any, list[str]]:
    """A session of the graph with further outputs, and what it calls these.

    ONNX Runtime optimises the graph once, with every output in the layout of the original; then it reads what it wrote, less
    the nodes that only bring an output into that layout. They would cost a tenth of an inference.
    """
    settings = {"threads": threads, "spin": False, "memory_pattern": False, "arena": False}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps a file that is mapped
        path, optimised = Path(folder, "watched.onnx"), Path(folder, "optimised.onnx")
        write_watched(graph, path, outputs)
        onnxruntime.session(str(path), Target("cpu"), settings | {"optimised": str(optimised)})
        names = expose_blocks(optimised)
        live = onnxruntime.session(str(optimised), Target("cpu"), settings | {"as_is": True})
    return live, [names[name] for name in outputs]
