"""A graph as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_LANES = 16  # the widest block of channels in ONNX Runtime's NCHWc layout; other CPUs have 8


def serialise(model: ir.Model) -> bytes:
    """The same graph always gives the same bytes."""
    import onnx_ir as ir

    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


def write_watched(model: ir.Model, path: Path, outputs: Sequence[str]) -> None:
    """Write the model with the tensors in `outputs` as further outputs. It stays as it is.

    The weights go to a file of their own beside `path`, which ONNX Runtime maps into memory and does not copy.
    """
    import onnx_ir as ir

    copy = model.clone()
    present = {output.name for output in copy.graph.outputs}
    wanted = set(outputs) - present
    copy.graph.outputs.extend(value for node in copy.graph for value in node.outputs if value.name in wanted)
    ir.save(copy, path, external_data=f"{path.stem}.weights")


def expose_blocks(path: Path) -> dict[str, str]:
    """Make a graph that ONNX Runtime optimised and wrote to `path` put out tensors as its kernels have them.

    ONNX Runtime's NCHWc kernels keep channels in blocks of 8 or 16; each output costs one pass to reorder it. Where only its
    values count and not their order, that pass can go. Returns {name of an output: what it is called now}. Outputs whose
    channels may not fill their blocks stay as they are: a block that is not full is filled up with zeros.
    """
    import onnx_ir as ir

    model, names = ir.load(path), dict[str, str]()
    for index, output in enumerate(model.graph.outputs):
        node = output.producer()
        names[output.name or ""] = output.name or ""
        if node is None or node.op_type != "ReorderOutput" or node.attributes["channels"].as_int() % _LANES:
            continue
        assert node.inputs[0] is not None
        model.graph.outputs[index] = node.inputs[0]
        names[output.name or ""] = node.inputs[0].name or ""
        if not output.uses():
            model.graph.remove(node, safe=True)
    ir.save(model, path)
    return names
