"""FP32 graph -> FP16 or BF16 graph with FP32 input and output.

1. Every float32 tensor between the input and the output becomes float16 or bfloat16, constants included. A Cast stands
   behind each input and before each output.
2. A node in `keep` stays in float32, between Casts: an FP32 island. One Cast serves all readers of a tensor.
3. The parameters of QuantizeLinear and DequantizeLinear stay float32; so a kept node may read and write them without a Cast.
4. A constant that float16 cannot hold (its magnitude above 65504) is an error, never an infinity. bfloat16 holds them all.
5. A Cast of the file's own, such as a dimension's on its way to a square root, stays what it is; its readers cast its result.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import constant, finish, initializer, matches

LARGEST = float(np.finfo(np.float16).max)
NAMES = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
BF16_OPSET = 22  # the first in which Conv and the pools take bfloat16
QDQ = ("QuantizeLinear", "DequantizeLinear")
FLOAT_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}  # operands that the operator defines as float32, whatever it computes in


def to_fp16(model: ir.Model, keep: Collection[str] = ()) -> ir.Model:
    """A copy whose nodes compute in float16, except those named in `keep` and those among Q/DQ. Raises GraphError."""
    return _to_half(model, keep, ir.DataType.FLOAT16)


def to_bf16(model: ir.Model, keep: Collection[str] = ()) -> ir.Model:
    """As `to_fp16` in bfloat16: FP32's range with 8 bits of mantissa. Raises GraphError."""
    older = model.opset_imports.get("", BF16_OPSET) < BF16_OPSET
    renewed = next((node for node in model.graph if node.op_type == "GroupNormalization" and not node.domain), None)
    if older and renewed is not None:  # its scale had another shape before opset 21
        what = f"node '{renewed.name}' (GroupNormalization) cannot be brought to opset {BF16_OPSET}, which BF16 needs"
        raise GraphError(what, remedy=f"Export the model with opset {BF16_OPSET}, or set `compute` to fp16")
    model = _to_half(model, keep, ir.DataType.BFLOAT16)
    model.opset_imports[""] = max(BF16_OPSET, model.opset_imports.get("", BF16_OPSET))
    return finish(model)


def _to_half(model: ir.Model, keep: Collection[str], kind: ir.DataType) -> ir.Model:
    model = model.clone()
    graph = model.graph
    float_values = {v for v in _values(model) if v.dtype == ir.DataType.FLOAT}
    islands = {node for node in graph if _is_island(node, keep)}
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    half: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.op_type == "Cast" and not node.domain and node not in islands:
            continue
        fixed = range(len(node.inputs)) if node in islands else FLOAT_INPUTS.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if value is None or value not in float_values:
                continue
            wants_half = index not in fixed
            if constant(value) is not None and value.producer() is None:
                if wants_half:
                    node.replace_input_with(index, half.setdefault(value, _half(graph, value, kind)))
                continue
            if wants_half != _makes_half(value, islands):
                node.replace_input_with(index, _cast(graph, value, kind if wants_half else ir.DataType.FLOAT, casts))
        _retype_attributes(node, islands, kind)
    for index, value in enumerate(graph.outputs):
        if value in float_values and _makes_half(value, islands):
            _cast_output(graph, index, value, kind)
    for node in graph:
        for output in node.outputs:
            if not output.is_graph_output() and output in float_values:
                output.type = output.shape = None  # what it is now, shape inference says
    return finish(model)


def unsafe_on_cpu(model: ir.Model) -> tuple[str, ...]:
    """The nodes that ONNX Runtime's CPU must not be given in float16, whose results stay the same in float32.

    A Transpose right before a MatMul with constant weights: for some permutations the layout optimizer of ONNX Runtime 1.32 reads
    memory that is not there, and ends the process while it loads the file. In float32 it does not.
    """
    moved = (node for node in model.graph if node.op_type == "Transpose" and not node.domain)
    return tuple(
        node.name or ""
        for node in moved
        if any(use.node.op_type == "MatMul" and constant(use.node.inputs[1]) is not None for use in node.outputs[0].uses())
    )


def _values(model: ir.Model) -> list[ir.Value]:
    graph = model.graph
    return [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]


def _is_island(node: ir.Node, keep: Collection[str]) -> bool:
    return bool(node.domain) or node.op_type in QDQ or matches(node.name, keep)


def _makes_half(value: ir.Value, islands: Collection[ir.Node]) -> bool:
    """Whether the rewritten graph holds `value` in float16: its producer computes in it (rule 5)."""
    producer = value.producer()
    return producer is not None and producer not in islands and not (producer.op_type == "Cast" and not producer.domain)


def _half(graph: ir.Graph, value: ir.Value, kind: ir.DataType) -> ir.Value:
    array = constant(value)
    assert array is not None
    peak = float(np.abs(array).max(initial=0.0))
    if kind == ir.DataType.FLOAT16 and not peak <= LARGEST:
        raise GraphError(
            f"constant '{value.name}' reaches {peak:g}, above float16's {LARGEST:g}",
            remedy="Name its layer in `precision.keep_fp32`",
        )
    return initializer(graph, f"{value.name}.{NAMES[kind]}", array.astype(kind.numpy()))


def _cast(graph: ir.Graph, value: ir.Value, kind: ir.DataType, casts: dict[tuple[ir.Value, ir.DataType], ir.Value]) -> ir.Value:
    if (value, kind) not in casts:
        name = f"{value.name}.{NAMES.get(kind, 'fp32')}"
        node = ir.node("Cast", [value], {"to": kind.value}, outputs=[ir.Value(name=name)], name=name)
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(producer, node)
        casts[value, kind] = node.outputs[0]
    return casts[value, kind]


def _cast_output(graph: ir.Graph, index: int, value: ir.Value, kind: ir.DataType) -> None:
    """The output keeps its name and stays float32; what was computed gets another name."""
    name, producer = value.name, value.producer()
    assert producer is not None
    value.name = f"{name}.{NAMES[kind]}"
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Cast", [value], {"to": ir.DataType.FLOAT.value}, outputs=[output], name=f"{name}.cast")
    graph.append(node)
    graph.outputs[index] = output


def _retype_attributes(node: ir.Node, islands: Collection[ir.Node], kind: ir.DataType) -> None:
    """ConstantOfShape and Constant say their type themselves."""
    value = node.attributes.get("value")
    if node in islands or value is None or node.op_type not in ("ConstantOfShape", "Constant"):
        return
    array = value.as_tensor().numpy()
    if array.dtype == np.float32:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array.astype(kind.numpy())))
