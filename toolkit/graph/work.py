"""Work: the multiply-adds and bytes that a graph stands for, counted on its shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from toolkit.errors import GraphError
from toolkit.graph.edit import WEIGHTED, attribute
from toolkit.harness.roofline import Work


def work(graph: ir.Model) -> Work:
    """Of every Conv, ConvTranspose, Gemm and MatMul with a weight: its multiply-adds, and its operands once from or to memory.

    An operand that comes from a DequantizeLinear counts at its quantized size. The sum is per image: activations' first axis is
    the batch. Nodes whose shapes are not known are left out.
    """
    each = [layer for _, layer in layers(graph)]
    return Work(
        macs=sum(layer.macs for layer in each),
        weight_bytes=sum(layer.weight_bytes for layer in each),
        activation_bytes=sum(layer.activation_bytes for layer in each),
    )


def work_of(graph: ir.Model) -> Work:
    """The work of a compiled graph, whose shapes are not told yet. Raises GraphError where a layer's cannot be inferred."""
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph)  # says nothing where it fails
    counted = {id(node) for node, _ in layers(graph)}
    missing = [node for node in graph.graph if _is_layer(node) and id(node) not in counted]
    if missing:
        what = f"the shapes of {len(missing)} layers, such as '{missing[0].name}', cannot be inferred"
        raise GraphError(what, remedy="Build the engine again")
    return work(graph)


def _is_layer(node: ir.Node) -> bool:
    """Whether it multiplies with a weight, and not with what another layer gives."""
    if node.op_type not in WEIGHTED or node.domain:
        return False
    value = node.inputs[1]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in ("DequantizeLinear", "Cast", "Transpose", "Constant"):
            return False
        value = producer.inputs[0] if producer.inputs else None
    return value is None or not value.is_graph_input()


def layers(graph: ir.Model) -> Iterator[tuple[ir.Node, Work]]:
    """The same for each layer on its own, in graph order."""
    for node in graph.graph:
        if node.op_type not in WEIGHTED or node.domain:
            continue
        data, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
        elements = [_per_image(data), _elements(weight), _per_image(output)]
        if data is None or weight is None or None in elements:
            continue
        inputs, weights, outputs = (e or 0 for e in elements)
        # what a fused, quantized convolution writes has the type of what it reads
        moved = (inputs + outputs) * _width(data)
        yield node, Work(macs=_macs(node, weight, outputs), weight_bytes=weights * _width(weight), activation_bytes=moved)


def _macs(node: ir.Node, weight: ir.Value, outputs: int) -> int:
    shape = weight.shape
    assert shape is not None
    sizes = [size for size in shape if isinstance(size, int)]
    if node.op_type == "Conv":
        return outputs * math.prod(sizes[1:])
    if node.op_type == "ConvTranspose":
        return outputs * math.prod([sizes[0], *sizes[2:]]) // int(attribute(node, "group", 1))
    return outputs * (sizes[1] if node.op_type == "Gemm" and int(attribute(node, "transB", 0)) else sizes[-2])


def _width(value: ir.Value) -> int:
    """Bytes an element, as memory holds it."""
    producer = value.producer()
    while producer is not None and producer.op_type in ("DequantizeLinear", "Cast", "Relu"):
        source = producer.inputs[0]
        if source is None:
            break
        value, producer = source, source.producer()
    return int(value.dtype.itemsize) if value.dtype is not None else 4


def _elements(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else _product(list(value.shape))


def _per_image(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else _product(list(value.shape)[1:])


def _product(sizes: Sequence[int | ir.SymbolicDim]) -> int | None:
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None
