"""Widths: a graph in float16, bfloat16 or float64 -> the same graph in float32, between ends of float32.

1. Constants and the types that Cast, ConstantOfShape and the like name become float32. What is widened keeps its value.
2. The input becomes float32. One of whole numbers (uint8) is taken as the pixels that it holds: where the graph only moves them
   before it casts them to a float, they are floats from the start; else one Cast at the input makes them whole.
3. Ends are float32; a whole-number output gets a Cast.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute, make
from toolkit.graph.load.inputs import WHOLE

WIDE = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16", ir.DataType.DOUBLE: "float64"}
KINDS = {"Cast": "to", "RandomNormal": "dtype", "RandomUniform": "dtype", "EyeLike": "dtype", "DequantizeLinear": "output_dtype"}
MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Split", "Expand"}


def to_float32(model: ir.Model) -> tuple[str, ...]:
    """In place; which types were there. Shapes of computed tensors are forgotten: they are inferred again."""
    graph, found = model.graph, dict[str, str]()
    for value in list(graph.initializers.values()):
        if value.dtype in WIDE and value.const_value is not None:
            found[WIDE[value.dtype]] = value.name or ""
            array = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    image = graph.inputs[0]
    if image.dtype in WIDE:
        found.setdefault(WIDE[image.dtype], image.name or "")
    _widen_attributes(graph, found)
    if image.dtype in WHOLE:
        _float_pixels(graph, image)
    elif image.dtype in WIDE:
        image.type = ir.TensorType(ir.DataType.FLOAT)
    for node in graph:
        for output in node.outputs:
            output.type = output.shape = None
    return tuple(found)


def unfit_for_cpu(model: ir.Model, found: tuple[str, ...]) -> bool:
    """Whether a file that holds these types must be widened for ONNX Runtime's CPU to run it.

    It has no kernels for most operators in bfloat16 and float64. And 1.32 crashes while it loads a float16 Transpose that swaps
    the first dimension of three before a MatMul with constant weights: attention, as torch exports it.
    """
    if "bfloat16" in found or "float64" in found:
        return True
    turns = (node for node in model.graph if node.op_type == "Transpose")
    swaps = (node for node in turns if tuple(attribute(node, "perm", None) or ()) in ((1, 0, 2), (1, 2, 0)))
    readers = (reader for node in swaps for reader in node.outputs[0].consumers())
    return "float16" in found and any(reader.op_type == "MatMul" for reader in readers)


def _widen_attributes(graph: ir.Graph, found: dict[str, str]) -> None:
    for node in graph:
        key = KINDS.get(node.op_type)
        if key is not None and key in node.attributes:
            kind = ir.DataType(node.attributes[key].as_int())
            if kind in WIDE:
                found.setdefault(WIDE[kind], node.name or node.op_type)
                node.attributes[key] = ir.AttrInt64(key, ir.DataType.FLOAT.value)
        value = node.attributes.get("value")
        if value is not None and value.type == ir.AttributeType.TENSOR and value.as_tensor().dtype in WIDE:
            found.setdefault(WIDE[value.as_tensor().dtype], node.name or node.op_type)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(value.as_tensor().numpy().astype(np.float32)))


def _float_pixels(graph: ir.Graph, image: ir.Value) -> None:
    """Rule 2."""
    kind = image.dtype
    image.type = ir.TensorType(ir.DataType.FLOAT)
    reached, stack = list[ir.Node](), [image]
    while stack:
        value = stack.pop()
        for node in value.consumers():
            reached.append(node)
            if node.op_type in MOVES and not node.domain:
                stack.extend(node.outputs)
    floats = {ir.DataType.FLOAT.value, *(wide.value for wide in WIDE)}
    if all(node.op_type in MOVES or (node.op_type == "Cast" and attribute(node, "to", 0) in floats) for node in reached):
        return
    assert kind is not None
    node = make("Cast", [image], f"{image.name}.pixels", to=kind.value)
    for use in list(image.uses()):
        if use.node is not node:
            use.node.replace_input_with(use.idx, node.outputs[0])
    graph.insert_before(graph[0], node)


def float_output(model: ir.Model) -> None:
    """Rule 3, once types are inferred; in place."""
    output = model.graph.outputs[0]
    if output.dtype in (None, ir.DataType.FLOAT):
        return
    name, output.name = output.name, f"{output.name}.as_computed"
    node = make("Cast", [output], f"{name}.cast", output=name, to=ir.DataType.FLOAT.value)
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), output.shape
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
