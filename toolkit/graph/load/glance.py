"""A glance at an ONNX file: what it says of itself, before a recipe says how it is to be read. Weights are not looked at."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError

from toolkit.disk.files import read_regular
from toolkit.errors import GraphError
from toolkit.graph.load.read import MOST_BYTES, not_onnx


class Tensor(NamedTuple):
    """An input or an output: numpy's or ONNX's word for its type, and its sizes, None where one is open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


class Glance(NamedTuple):
    """What the file tells."""

    opset: int
    producer: str
    inputs: tuple[Tensor, ...]  # without those that are weights
    outputs: tuple[Tensor, ...]
    operators: int
    constants: frozenset[str]  # names of the weights, and of what Constant nodes give
    made: frozenset[str]  # names of all other tensors, and of the nodes

    @property
    def image(self) -> Tensor | None:
        """The input that takes pictures, where one alone can: the only one, or the only one of four dimensions."""
        images = [tensor for tensor in self.inputs if len(tensor.shape) == 4 and tensor.shape[1:].count(1) < 2]  # no one pixel
        return images[0] if len(images) == 1 else None


def glance(path: Path) -> Glance:
    """Raises GraphError where it is no ONNX file."""
    data = b""
    try:
        data = read_regular(path, MOST_BYTES)
        proto = onnx.load_model_from_string(data)
    except FileNotFoundError:
        raise GraphError(f"there is no file {path}") from None
    except (OSError, DecodeError, UnicodeDecodeError, ValueError) as error:
        raise not_onnx(path, data[:16], error) from error
    if not proto.graph.node:
        raise GraphError(f"{path} is not a valid ONNX file: it holds no operator", remedy="Export the model again")
    weights = {tensor.name for tensor in proto.graph.initializer}
    nodes = proto.graph.node
    return Glance(
        opset=next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0),
        producer=" ".join(filter(None, (proto.producer_name, proto.producer_version))),
        inputs=tuple(_tensor(value) for value in proto.graph.input if value.name not in weights),
        outputs=tuple(_tensor(value) for value in proto.graph.output),
        operators=len(proto.graph.node),
        constants=frozenset(weights | {name for node in nodes if node.op_type == "Constant" for name in node.output}),
        made=frozenset({name for node in nodes for name in (node.name, *node.output)} | {one.name for one in proto.graph.input}),
    )


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    known = kind.elem_type in onnx.TensorProto.DataType.values()
    dtype = onnx.TensorProto.DataType.Name(kind.elem_type).lower() if known and kind.elem_type else "?"
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Tensor(value.name, {"float": "float32", "double": "float64"}.get(dtype, dtype), sizes)
