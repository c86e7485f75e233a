"""Weave: one graph out of copies of parts of others, so that a network, its typed twin and every layer in between run at once.

A typed graph in half precision is woven as `graph.rounding` makes it: float32, with Casts where it rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant
from toolkit.types import Array

Rounding = Literal["as is", "clipped", "none"]
FLOAT = ir.DataType.FLOAT
FLOATS = (FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Weaver:
    """Mutable while the graph grows; `model` gives it."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self._constants: dict[int, ir.Value] = {}
        self._initializers: list[ir.Value] = []
        self._originals: list[ir.Value] = []  # keeps the ids above alive
        self._count = 0

    def input(self, name: str, shape: Sequence[int | str], kind: ir.DataType | None = FLOAT) -> ir.Value:
        """An input of the graph."""
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind or FLOAT))

    def constant(self, array: Array, name: str = "constant") -> ir.Value:
        """An initializer that holds `array`."""
        self._count += 1
        free = f"{name}/{self._count}"
        tensor = ir.tensor(np.asarray(array, order="C"), name=free)
        value = ir.Value(name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._initializers.append(value)
        return value

    def op(self, op: str, inputs: Sequence[ir.Value | None], name: str | None = None, **attributes: Any) -> ir.Value:
        """A new node with one output."""
        self._count += 1
        output = ir.Value(name=name or f"{op}/{self._count}")
        self.nodes.append(ir.node(op, inputs, attributes=attributes or None, outputs=[output], name=f"{op}/{self._count}"))
        return output

    def copy(self, nodes: Iterable[ir.Node], values: dict[ir.Value, ir.Value], rounding: Rounding = "as is") -> None:
        """Copy `nodes`, in their order; `values` says what stands for what they read, and is told what stands for their outputs.

        `clipped`: Q/DQ pairs clip to their range and do not round, nor do Casts to half precision. `none`: nor do pairs clip.
        Raises GraphError.
        """
        for node in nodes:
            source = values.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and source is not None and rounding != "as is":
                clips = node.op_type == "QuantizeLinear" and rounding == "clipped"
                values[node.outputs[0]] = self._clip(node, source) if clips else source
            elif node.op_type == "Cast" and source is not None and rounding != "as is" and _between_floats(node):
                values[node.outputs[0]] = source
            else:
                self._one(node, values)

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], opset: int) -> ir.Model:
        """The whole graph, its nodes in the order in which they were added."""
        graph = ir.Graph(
            inputs, outputs, nodes=self.nodes, initializers=self._initializers, opset_imports={"": opset}, name="woven"
        )
        for value in outputs:
            value.type = value.type or ir.TensorType(FLOAT)
        return ir.Model(graph, ir_version=10)

    def _one(self, node: ir.Node, values: dict[ir.Value, ir.Value]) -> None:
        if any(found.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for found in node.attributes.values()):
            what = f"'{node.name}' ({node.op_type}) contains a subgraph, which cannot be analyzed layer by layer"
            raise GraphError(what, remedy="Export the model without control flow")
        inputs = [None if value is None else self._operand(value, values) for value in node.inputs]
        self._count += 1
        outputs = [ir.Value(name=f"{value.name}/{self._count}" if value.name != "" else "") for value in node.outputs]
        name = f"{node.name}/{self._count}"
        self.nodes.append(ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs, name=name))
        values.update(zip(node.outputs, outputs, strict=True))

    def _operand(self, value: ir.Value, values: dict[ir.Value, ir.Value]) -> ir.Value:
        if value in values:
            return values[value]
        if id(value) not in self._constants:
            array = constant(value)
            if array is None:
                raise GraphError(f"the tensor '{value.name}' is computed outside of the part that reads it")
            self._originals.append(value)
            self._constants[id(value)] = self.constant(array, value.name or "constant")
        return self._constants[id(value)]

    def _clip(self, quantize: ir.Node, value: ir.Value) -> ir.Value:
        """What the type of a QuantizeLinear can hold, without its steps."""
        scale = constant(quantize.inputs[1])
        zero = constant(quantize.inputs[2]) if len(quantize.inputs) > 2 else np.array(0, np.uint8)
        if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
            return value
        info = np.iinfo(zero.dtype)
        step, offset = float(scale.ravel()[0]), float(zero.ravel()[0])
        ends = [np.array((end - offset) * step, np.float32) for end in (info.min, info.max)]
        return self.op("Clip", [value, *map(self.constant, ends)])


def _between_floats(node: ir.Node) -> bool:
    """Whether a Cast only changes how fine a float is."""
    before = node.inputs[0].dtype if node.inputs[0] is not None else None
    return attribute(node, "to", 0) in [kind.value for kind in FLOATS] and before in (*FLOATS, None)
