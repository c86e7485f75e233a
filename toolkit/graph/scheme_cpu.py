"""Scheme `cpu`: where ONNX Runtime wants Q/DQ pairs.

1. Each activation that a quantized operator reads has one pair, and so has each result of a convolution: ONNX Runtime fuses
   an operator only where all of its inputs come from a DequantizeLinear and its result goes to a QuantizeLinear.
2. A Relu or Clip belongs to what stands before it: the one pair stands behind it and cuts as it does. Other activation
   functions run in floating point between two pairs, of which the first spans only what the function tells apart.
3. Operators that only move values (max-pool, flatten, transpose, split) keep the scale of their input.
4. Sums, products, concatenations and average pools are quantized where all they read comes quantized from INT8 operators, and
   another INT8 operator reads what they give. Elsewhere (the residual stream of a transformer, a squeeze-excite gate in
   floating point) they stay in floating point: a pair would round and fuse nothing. So do LayerNorm, Softmax and products of two
   activations.
5. Activations are uint8: zero point 0 where nothing is negative, affine otherwise.
6. Logits are never quantized. A Gemm's bias is split into an Add: ONNX Runtime does not fuse it otherwise.
7. An AveragePool with both `ceil_mode` and `count_include_pad` stays in floating point: ONNX Runtime's INT8 kernel divides by the
   wrong count there.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from toolkit.graph.activations import Activation, units
from toolkit.graph.edges import Edge, moves, origin
from toolkit.graph.edit import attribute, constant, matches, weight_of
from toolkit.graph.scheme_tensorrt import tensorrt_edges

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
JOINS = ("Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat")
COMPUTES = (*WEIGHTED, *JOINS)


def watched(model: ir.Model) -> tuple[str, ...]:
    """The tensors whose ranges the schemes draw on, in graph order: what calibration has to watch, and nothing else."""
    wanted = {origin(edge.value) for edge in (*cpu_edges(model, ()), *tensorrt_edges(model, ()))}
    values = (*model.graph.inputs, *(output for node in model.graph for output in node.outputs))
    return tuple(value.name or "" for value in values if value in wanted)


def cpu_edges(model: ir.Model, keep: Collection[str]) -> list[Edge]:
    """The edges of scheme `cpu`, in graph order."""
    plan = _Plan(model, keep)
    values = [value for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT]
    values += [output for node in model.graph for output in node.outputs]
    return [Edge(value, None, plan.units.get(value)) for value in values if plan.is_quantized(value)]


def computes(node: ir.Node, keep: Collection[str]) -> bool:
    """Whether the node is an operator that scheme `cpu` can run in INT8: known, not kept, its operands activations or weights."""
    if node.domain or node.op_type not in COMPUTES or matches(node.name, keep):
        return False
    if node.op_type in WEIGHTED:
        return weight_of(node) is not None
    return not any(constant(value) is not None for value in node.inputs) and not miscounts(node)


def miscounts(node: ir.Node) -> bool:
    """Whether ONNX Runtime's INT8 kernel would average wrongly: it counts the padding that `ceil_mode` adds."""
    both = node.op_type == "AveragePool" and not node.domain
    return both and bool(attribute(node, "ceil_mode", 0)) and bool(attribute(node, "count_include_pad", 0))


class _Plan:
    """Which nodes of a graph run in INT8 (rules 1, 2 and 4)."""

    def __init__(self, model: ir.Model, keep: Collection[str]) -> None:
        self.units = units(model)
        self._behind = {unit.output: unit for unit in self.units.values()}
        inner = {node for unit in self.units.values() for node in unit.nodes}
        able = {node for node in model.graph if computes(node, keep) and node not in inner}
        self.int8 = {node for node in able if node.op_type in WEIGHTED}
        for node in model.graph:
            if node in able and all(value is None or self._comes_quantized(value) for value in node.inputs):
                self.int8.add(node)
        for node in reversed(list(model.graph)):
            if node in self.int8 and node.op_type in JOINS and not self._is_wanted(self._end(node.outputs[0])):
                self.int8.discard(node)

    def is_quantized(self, value: ir.Value) -> bool:
        """Whether `value` has a pair."""
        unit, producer = self.units.get(value), value.producer()
        if producer is not None and producer.op_type == "DequantizeLinear":  # pixels, which come quantized (`pixels.py`)
            return False
        if value.is_graph_output() or value.dtype not in (ir.DataType.FLOAT, None) or (unit is not None and self._fuses(unit)):
            return False
        return self._made_by(value, ("Conv",)) or self._is_wanted(value)

    def _fuses(self, unit: Activation) -> bool:
        """Whether the unit is but a cut, behind something that a backend fuses it with."""
        producer = unit.source.producer()
        return unit.saturates and producer is not None and producer.op_type in ("Conv", "Gemm", "Add") and not producer.domain

    def _end(self, value: ir.Value) -> ir.Value:
        """Where a pair behind the node that makes `value` would stand: behind its Relu or Clip."""
        unit = self.units.get(value)
        return unit.output if unit is not None and self._fuses(unit) else value

    def _made_by(self, value: ir.Value, kinds: Collection[str]) -> bool:
        """Whether an INT8 operator of these kinds makes `value`, alone or with its Relu or Clip."""
        unit = self._behind.get(value)
        producer = (unit.source if unit is not None and self._fuses(unit) else value).producer()
        return producer is not None and producer in self.int8 and producer.op_type in kinds

    def _comes_quantized(self, value: ir.Value) -> bool:
        """Whether `value` is what an INT8 operator gives, at once or through moves and activation functions, or an input."""
        value = origin(value)
        unit = self._behind.get(value)
        if unit is not None:
            return self._comes_quantized(unit.source)
        return value.producer() is None or self._made_by(value, COMPUTES)

    def _is_wanted(self, value: ir.Value) -> bool:
        """Whether some reader runs in INT8, be it behind operators that only move values."""
        for reader in value.consumers():
            bias = reader.inputs[2] if len(reader.inputs) > 2 and reader.op_type in WEIGHTED else None
            if reader in self.int8 and value is not bias:
                return True
            if moves(reader) and reader.inputs[0] is value and any(self._is_wanted(output) for output in reader.outputs):
                return True
        return False
