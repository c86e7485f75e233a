"""Channel scales around activation functions that let none through: HardSwish, SiLU, GELU.

Such a function runs in floating point between two Q/DQ pairs, so a product by one number a channel may stand on either side of
it, and both tensors can be quantized as if each channel had a scale of its own. The convolution before it takes on t_c, a product
before the function gives it back; a product behind it takes on s_c, and the layers that read it give that back. The function that
the graph computes in FP32 stays. The price is two products a function, in floating point.

s_c is `equalize`'s, the one of least noise in the readers. t_c is the same as far as the channel's range before the function,
down to where the function is flat, does not pass that of the other channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np
import onnx_ir as ir

from toolkit.graph.activations import Activation, units
from toolkit.graph.channels import IMAGES, Channels, Real, measure, singly
from toolkit.graph.edit import constant, finish, initializer, make, weight_of
from toolkit.graph.equalize import PEAK, ChannelSet, Mode, evidence, factors, is_reader, scale_layer, scaled
from toolkit.types import Float

POOLS = ("GlobalAveragePool", "AveragePool", "MaxPool")


def equalized(model: ir.Model, mode: Mode, images: Iterable[Float]) -> ir.Model:
    """`equalize`, and for `activations` products around activation functions too. Raises GraphError, CalibrationError."""
    few = list(islice(singly(images), IMAGES)) if mode != "none" else []
    return equalized_by(model, mode, evidence(model, mode, few), few)


def equalized_by(model: ir.Model, mode: Mode, seen: Mapping[str, Channels], images: Iterable[Float]) -> ir.Model:
    """`equalized` by the evidence of the same graph. Functions are measured in the scaled one: LeakyRelu lets scales through."""
    model = scaled(model, mode, seen)
    return prescale(model, images) if mode == "activations" else model


def has_functions(model: ir.Model) -> bool:
    """Whether `activations` would change anything that `streams` does not."""
    return bool(_groups(model))


def _groups(model: ir.Model) -> list[tuple[Activation, ChannelSet]]:
    return [(unit, group) for unit in units(model).values() if (group := _group(unit)) is not None]


def prescale(model: ir.Model, images: Iterable[Float]) -> ir.Model:
    """A copy with products around each such function whose readers are layers; `images` as for `equalize`."""
    model = model.clone()
    found = _groups(model)
    if not found:
        return model
    names = {name for unit, group in found for name in (unit.source.name or "", *group.tensors)}
    seen = measure(model, images, sorted(names))
    for unit, group in found:
        behind = factors(group, seen)
        _around(unit, behind, _before(unit, behind, seen))
        for reader in group.readers:
            scale_layer(reader, None, behind)
    return finish(model)


def _group(unit: Activation) -> ChannelSet | None:
    """The layers that read the function's result, at once, through pools, or times a gate; None where anything else does."""
    conv, shape = unit.source.producer(), unit.output.shape
    if unit.saturates or conv is None or conv.op_type != "Conv" or weight_of(conv) is None or shape is None or len(shape) != 4:
        return None
    if not isinstance(shape[1], int):
        return None
    if not _is_linear_far_out(unit) or (len(conv.inputs) > 2 and constant(conv.inputs[2]) is None):
        return None
    values, readers = [unit.output], list[ir.Node]()
    for value in values:
        for use in value.uses():
            node = use.node
            if node.op_type in POOLS or (node.op_type == "Mul" and _is_gated(node, value)):
                values.append(node.outputs[0])
            elif use.idx == 0 and node.op_type == "Conv" and is_reader(node) and node not in readers:
                readers.append(node)
            else:
                return None
        if value.is_graph_output():
            return None
    names = tuple(value.name or "" for value in values)
    return ChannelSet(shape[1], names, (), tuple(readers), stream=False) if readers else None


def _is_gated(product: ir.Node, value: ir.Value) -> bool:
    """Whether the other factor is one number a channel, computed or constant."""
    other = next((v for v in product.inputs if v is not value), None)
    return other is not None and other.shape is not None and len(other.shape) == 4 and tuple(other.shape[2:]) == (1, 1)


def _is_linear_far_out(unit: Activation) -> bool:
    return bool((np.abs(unit(np.array([100.0])) / 100 - 1) < 0.1).all())  # in every channel


def _before(unit: Activation, behind: Real, seen: Mapping[str, Channels]) -> Real:
    """t_c."""
    peak, after = seen[unit.source.name or ""].peak, seen[unit.output.name or ""].peak
    most = float(peak.max())
    flat = -unit.active(-most, most)[0]
    reach = np.maximum(after, np.minimum(peak, flat))
    return np.asarray(np.minimum(behind, PEAK / np.maximum(reach, np.finfo(np.float32).tiny)))


def _around(unit: Activation, behind: Real, before: Real) -> None:
    conv, graph = unit.source.producer(), unit.nodes[0].graph
    assert conv is not None and graph is not None
    scale_layer(conv, before, None)
    source, output = unit.source, unit.output
    undo = initializer(graph, f"{source.name}.unscale", (1 / before).astype(np.float32).reshape(1, -1, 1, 1))
    inner = make("Mul", [source, undo], f"{source.name}.unscaled")
    inner.outputs[0].shape, inner.outputs[0].type = source.shape, source.type
    uses = [use for use in source.uses() if use.node is not inner]
    graph.insert_after(conv, inner)
    for node, index in uses:
        node.replace_input_with(index, inner.outputs[0])
    step = initializer(graph, f"{output.name}.prescale", behind.astype(np.float32).reshape(1, -1, 1, 1))
    outer = make("Mul", [output, step], f"{output.name}.prescaled")
    outer.outputs[0].shape, outer.outputs[0].type = output.shape, output.type
    uses = [use for use in output.uses() if use.node is not outer]
    graph.insert_after(unit.nodes[-1], outer)
    for node, index in uses:
        node.replace_input_with(index, outer.outputs[0])
