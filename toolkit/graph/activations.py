"""Activation functions as units: the nodes between a value x and y = f(x), be it one operator or a pattern of several.

SiLU is exported as x * Sigmoid(x), HardSwish as x * Clip(x + 3, 0, 6) / 6, GELU over Erf. Quantization must see each as one step:
a Q/DQ pair inside would round what no backend rounds, and before it only what f can still tell apart has to be kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolkit.graph.edit import attribute, constant

Real = NDArray[np.float64]
SATURATES = ("Relu", "Clip")  # a QuantizeLinear behind does their work, so that a backend drops them
_POINTS = 4097
_MOST = 8  # nodes of a unit; GELU over Erf has five


class Activation(NamedTuple):
    """y = f(x), value by value; nobody else reads what is computed on the way."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    output: ir.Value

    @property
    def saturates(self) -> bool:
        """Whether it does nothing but cut: Relu, or Clip with constant bounds."""
        return all(node.op_type in SATURATES for node in self.nodes)

    def __call__(self, x: Real) -> Real:
        """f, in float64."""
        values: dict[ir.Value, Real] = {self.source: x}
        for node in self.nodes:
            operands = [None if v is None else values[v] if v in values else _scalar(v) for v in node.inputs]
            with np.errstate(all="ignore"):  # 1 / x at 0
                values[node.outputs[0]] = np.asarray(_FUNCTIONS[node.op_type](node, operands), np.float64)
        return values[self.output]

    @property
    def by_channel(self) -> bool:
        """Whether it multiplies by one number a channel; called, it gives x [n] -> [n, channels] then."""
        constants = [constant(v) for node in self.nodes for v in node.inputs]
        return any(array is not None and array.size > 1 for array in constants)

    def active(self, low: float, high: float) -> tuple[float, float]:
        """The part of [low, high] outside of which f moves by less than half a step, when 255 steps span all that f gives there.

        What lies beyond may be cut off before f: HardSwish is 0 below -3, a Sigmoid nearly so below -6.
        """
        if self.by_channel:
            return self._active_by_channel(low, high)
        x = np.linspace(low, high, _POINTS)
        y = self(x)
        half = float(np.ptp(y)) / 255 / 2
        if not np.isfinite(half) or low >= high:
            return low, high
        left, right = _flat(y, half), _flat(y[::-1], half)
        return (float(x[left]), float(x[::-1][right])) if left + right < _POINTS - 1 else (low, high)

    def _active_by_channel(self, low: float, high: float) -> tuple[float, float]:
        """The same for all channels together: no channel may be cut where it still moves."""
        x = np.linspace(low, high, _POINTS // 8)
        y = np.broadcast_to(self(x[:, None]), (len(x), self(x[:1, None]).size))
        half = float(np.ptp(y)) / 255 / 2
        if not np.isfinite(half) or low >= high:
            return low, high
        left = min(_flat(column, half) for column in y.T)
        right = min(_flat(column[::-1], half) for column in y.T)
        return (float(x[left]), float(x[::-1][right])) if left + right < len(x) - 1 else (low, high)


def _flat(y: Real, half: float) -> int:
    """The last index whose value all before it are within `half` of."""
    away = np.maximum(np.maximum.accumulate(y) - y, y - np.minimum.accumulate(y))
    return int(np.flatnonzero(away <= half)[-1])


def unit_of(x: ir.Value) -> Activation | None:
    """The longest activation function that takes all of `x`; None where something else reads `x` or a value on the way."""
    inside: dict[ir.Value, None] = {x: None}
    nodes: list[ir.Node] = []
    found = None
    while len(nodes) < _MOST and not x.is_graph_output():
        node = next((reader for value in inside for reader in value.consumers() if _joins(reader, inside, nodes)), None)
        if node is None:
            break
        nodes.append(node)
        inside[node.outputs[0]] = None
        if [value for value in inside if _is_read_outside(value, nodes)] == [node.outputs[0]]:
            found = Activation(x, tuple(nodes), node.outputs[0])
    return found


def units(model: ir.Model) -> dict[ir.Value, Activation]:
    """Every unit of a graph by its source; none lies in another."""
    found: dict[ir.Value, Activation] = {}
    taken: set[ir.Node] = set()
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        unit = None if value.producer() in taken else unit_of(value)
        if unit is not None:
            found[value] = unit
            taken.update(unit.nodes)
    return found


def _joins(node: ir.Node, inside: dict[ir.Value, None], nodes: Sequence[ir.Node]) -> bool:
    if node in nodes or node.domain or node.op_type not in _FUNCTIONS or len(node.outputs) != 1:
        return False
    if node.op_type == "Mul" and any(_is_by_channel(value) for value in node.inputs):
        return all(value in inside or _is_by_channel(value) for value in node.inputs)
    return all(value is None or value in inside or _is_scalar(value) for value in node.inputs)


def _is_read_outside(value: ir.Value, nodes: Sequence[ir.Node]) -> bool:
    return value.is_graph_output() or any(reader not in nodes for reader in value.consumers())


def _is_scalar(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.size == 1


def _is_by_channel(value: ir.Value | None) -> bool:
    """Whether it is a constant [1, C, 1, 1]."""
    array = constant(value)
    return array is not None and array.ndim == 4 and array.size == array.shape[1] > 1


def _scalar(value: ir.Value) -> Any:
    """The constant; one number a channel as [C]."""
    array = constant(value)
    assert array is not None  # as `_joins` has seen
    return float(array.ravel()[0]) if array.size == 1 else array.astype(np.float64).ravel()


def _clip(node: ir.Node, x: Sequence[Any]) -> Any:
    low, high = (*x[1:], None, None)[:2]
    return np.clip(x[0], -np.inf if low is None else low, np.inf if high is None else high)


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _hard_sigmoid(node: ir.Node, x: Sequence[Any]) -> Any:
    return np.clip(attribute(node, "alpha", 0.2) * x[0] + attribute(node, "beta", 0.5), 0, 1)


def _gelu(node: ir.Node, x: Sequence[Any]) -> Any:
    return 0.5 * x[0] * (1 + _erf(x[0] / math.sqrt(2)))  # its approximation by tanh is within 0.001


def _negative_side(node: ir.Node, x: Sequence[Any], default: float, side: Callable[[Any], Any]) -> Any:
    return np.where(x[0] >= 0, x[0], attribute(node, "alpha", default) * side(np.minimum(x[0], 0)))


_FUNCTIONS: dict[str, Callable[[ir.Node, Sequence[Any]], Any]] = {
    "Relu": lambda node, x: np.maximum(x[0], 0),
    "Clip": _clip,
    "LeakyRelu": lambda node, x: _negative_side(node, x, 0.01, lambda v: v),
    "Elu": lambda node, x: _negative_side(node, x, 1.0, np.expm1),
    "Sigmoid": lambda node, x: _sigmoid(x[0]),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node, x: x[0] * np.clip(x[0] / 6 + 0.5, 0, 1),
    "Tanh": lambda node, x: np.tanh(x[0]),
    "Erf": lambda node, x: _erf(x[0]),
    "Gelu": _gelu,
    "Softplus": lambda node, x: np.logaddexp(0, x[0]),
    "Mish": lambda node, x: x[0] * np.tanh(np.logaddexp(0, x[0])),
    "Add": lambda node, x: x[0] + x[1],
    "Sub": lambda node, x: x[0] - x[1],
    "Mul": lambda node, x: x[0] * x[1],
    "Div": lambda node, x: x[0] / x[1],
}
