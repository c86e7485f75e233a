"""Watch: a graph that puts out the values of the tensors to calibrate, beside its own results."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.backends import onnxruntime
from toolkit.errors import CalibrationError
from toolkit.onnxfile import expose_blocks, write_watched
from toolkit.types import Array, Float, Target

if TYPE_CHECKING:
    import onnx_ir as ir


class Watch:
    """The graph with the watched tensors as further outputs, live in ONNX Runtime."""

    def __init__(self, graph: ir.Model, tensors: Sequence[str], threads: int) -> None:
        known = {value.name for value in (*graph.graph.inputs, *(v for node in graph.graph for v in node.outputs))}
        missing = [name for name in tensors if name not in known]
        if missing:
            remedy = "Watch the tensors that toolkit.graph.qdq.watched names"
            raise CalibrationError(f"the graph has no tensor '{missing[0]}' to watch", remedy=remedy)
        self.threads = threads
        self._input = graph.graph.inputs[0].name
        self._tensors = tuple(dict.fromkeys(tensors))
        self._outputs = [name for name in self._tensors if name != self._input]  # an input needs no way out
        self._shape = tuple(graph.graph.inputs[0].shape or ())[1:]
        self._session, self._names = _open(graph, self._outputs, threads)

    def run(self, image: Float) -> dict[str, Array]:
        """[1, *input shape] -> each watched tensor's values, in any order and shape.

        Raises CalibrationError for an image of another shape.
        """
        shape = image.shape[1:]
        if len(shape) != len(self._shape) or any(a != b for a, b in zip(shape, self._shape, strict=True) if isinstance(b, int)):
            raise CalibrationError(f"the graph takes images of {list(self._shape)}, not {list(shape)}")
        values = self._session.run(self._names, {self._input: image}) if self._outputs else []
        found = dict(zip(self._outputs, values, strict=True))
        return {name: found.get(name, image) for name in self._tensors}


def _open(graph: ir.Model, outputs: Sequence[str], threads: int) -> tuple[Any, list[str]]:
    """A session of the graph with further outputs, and what it calls these.

    ONNX Runtime optimises the graph once, with every output in the layout of the original; then it reads what it wrote, less
    the nodes that only bring an output into that layout. They would cost a tenth of an inference.
    """
    settings = {"threads": threads, "spin": False, "memory_pattern": False}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps a file that is mapped
        path, optimised = Path(folder, "watched.onnx"), Path(folder, "optimised.onnx")
        write_watched(graph, path, outputs)
        onnxruntime.session(str(path), Target("cpu"), settings | {"optimised": str(optimised)})
        names = expose_blocks(optimised)
        live = onnxruntime.session(str(optimised), Target("cpu"), settings | {"as_is": True})
    return live, [names[name] for name in outputs]
