"""A graph as the bytes of an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def serialise(model: ir.Model, outputs: Sequence[str] = ()) -> bytes:
    """The same graph always gives the same bytes. The tensors in `outputs` become outputs too; the model stays as it is."""
    import onnx_ir as ir

    proto = ir.to_proto(model)
    present = {output.name for output in proto.graph.output}
    for name in outputs:
        if name not in present:
            proto.graph.output.add().name = name  # ONNX Runtime infers type and shape
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
