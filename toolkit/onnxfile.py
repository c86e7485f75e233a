"""A graph as an ONNX file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir



def serialize(model: ir.Model) -> bytes:
    """The same graph always gives the same bytes."""
    import onnx_ir as ir

    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data
