"""FakeQuant: a graph run in PyTorch with its Q/DQ points played in float, so that weights and scales can be trained through them.

Rounding has gradient 1 inside its range and 0 outside (straight-through, Bengio et al., 2013, arXiv:1308.3432); the ends of an
activation's range then get the gradient of learned step sizes (Esser et al., 2019, arXiv:1902.08153). A weight's scale
follows its largest magnitude, one an output channel, as the quantizer's does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.errors import GraphError


class Point(NamedTuple):
    """Where a pair stands: a tensor, the tensor whose range it has, and the nodes that read it quantized (None: all)."""

    tensor: str
    source: str
    readers: frozenset[str] | None


class FakeQuant(nn.Module):
    """An FP32 graph (ir.Model, BatchNorm folded) as a module: float32 [N, ...] -> logits [N, classes].

    `ranges` gives (lo, hi) for each source; `quantized` names the nodes whose weight is rounded, to `weight_bits` bits.
    `active = False` runs the plain FP32 graph. Raises GraphError for an operator that a ResNet does not have.
    """

    def __init__(
        self,
        graph: Any,
        points: Sequence[Point],
        ranges: dict[str, tuple[float, float]],
        quantized: Iterable[str],
        *,
        symmetric: bool,
        weight_bits: int = 8,
    ) -> None:
        super().__init__()
        self.active, self._symmetric, self._limit = True, symmetric, 2 ** (weight_bits - 1) - 1
        self._nodes, self._rounded = list(graph.graph), set(quantized)
        self._input, self._output = graph.graph.inputs[0].name, graph.graph.outputs[0].name
        self._points = {point.tensor: point for point in points}
        self._names = {name: f"p{index}" for index, name in enumerate(graph.graph.initializers)}
        self.ranges = ranges
        self._sources = {source: f"s{index}" for index, source in enumerate(ranges)}
        self.weights = nn.ParameterDict()
        for name, key in self._names.items():
            array = graph.graph.initializers[name].const_value.numpy()
            if array.dtype == np.float32:
                self.weights[key] = nn.Parameter(torch.from_numpy(array.copy()))
        self.stretch = nn.ParameterDict({key: nn.Parameter(torch.zeros(())) for key in self._sources.values()})
        for node in self._nodes:
            if node.op_type not in _OPERATORS:
                raise GraphError(f"'{node.name}' is a {node.op_type}, which fine-tuning does not know", remedy="It takes ResNets")

    def forward(self, x: Tensor) -> Tensor:
        values = {self._input: x}
        dequantized: dict[str, Tensor] = {}
        for node in self._nodes:
            inputs = [self._read(value.name, node.name, values, dequantized) for value in node.inputs if value is not None]
            if self.active and node.name in self._rounded:
                inputs[1] = self.round_weight(inputs[1])
            values[node.outputs[0].name] = _OPERATORS[node.op_type](inputs, {k: a.value for k, a in node.attributes.items()})
        logits: Tensor = values[self._output]
        return logits

    def _read(self, name: str, reader: str, values: dict[str, Tensor], dequantized: dict[str, Tensor]) -> Tensor:
        if name in self._names:
            weight: Tensor = self.weights[self._names[name]]
            return weight
        point = self._points.get(name) if self.active else None
        if point is None or (point.readers is not None and reader not in point.readers):
            return values[name]
        if name not in dequantized:
            dequantized[name] = self._round(values[name], point.source)
        return dequantized[name]

    def range(self, source: str) -> tuple[Tensor, Tensor]:
        """(lo, hi) as it stands: the given range, stretched by exp of what was learned."""
        low, high = self.ranges[source]
        factor = self.stretch[self._sources[source]].exp()
        return low * factor, high * factor

    def _round(self, x: Tensor, source: str) -> Tensor:
        low, high = self.range(source)
        if self.ranges[source] == (0.0, 0.0):
            return x
        if self._symmetric:
            scale, least, most = torch.maximum(-low, high) / 127, -128, 127
            zero = torch.zeros(())
        else:
            scale, least, most = (high - low) / 255, 0, 255
            zero = torch.round(-low / scale).detach()
        return (torch.clamp(_straight(x / scale) + zero, least, most) - zero) * scale

    def round_weight(self, weight: Tensor) -> Tensor:
        """A weight [out, ...] on its grid of 2^bits - 1 values an output channel."""
        most = weight.detach().abs().flatten(1).amax(1).view(-1, *[1] * (weight.ndim - 1))
        scale = torch.where(most > 0, most / self._limit, 1.0)
        return _straight(weight / scale) * scale

    def layers(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Each convolution's and each matrix product's weight and bias, by the node's name; rounded weights on their grid."""
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for node in self._nodes:
            if node.op_type in ("Conv", "Gemm"):
                weight, *rest = (self.weights[self._names[value.name]].detach() for value in node.inputs[1:] if value is not None)
                weight = self.round_weight(weight) if node.name in self._rounded else weight
                found[node.name] = (weight, rest[0] if rest else None)
        return found


def _straight(x: Tensor) -> Tensor:
    """Round half to even, as QuantizeLinear does; the gradient passes as if nothing had happened."""
    return x + (torch.round(x) - x).detach()


def _conv(inputs: list[Tensor], settings: dict[str, Any]) -> Tensor:
    rank = inputs[0].ndim - 2
    pads = list(settings.get("pads", [0] * 2 * rank))
    if settings.get("auto_pad", "NOTSET") != "NOTSET" or pads[:rank] != pads[rank:]:
        raise GraphError("fine-tuning takes convolutions with equal padding on both sides only")
    bias = inputs[2] if len(inputs) > 2 else None
    strides, dilations = list(settings.get("strides", [1] * rank)), list(settings.get("dilations", [1] * rank))
    return functional.conv2d(inputs[0], inputs[1], bias, strides, pads[:rank], dilations, settings.get("group", 1))


def _max_pool(inputs: list[Tensor], settings: dict[str, Any]) -> Tensor:
    kernel = list(settings["kernel_shape"])
    pads = list(settings.get("pads", [0] * 4))
    ceil = bool(settings.get("ceil_mode", 0))
    return functional.max_pool2d(inputs[0], kernel, list(settings.get("strides", kernel)), pads[:2], ceil_mode=ceil)


def _gemm(inputs: list[Tensor], settings: dict[str, Any]) -> Tensor:
    weight = inputs[1] if settings.get("transB", 0) else inputs[1].t()
    return functional.linear(inputs[0], weight, inputs[2] if len(inputs) > 2 else None)


_OPERATORS: dict[str, Any] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "Relu": lambda inputs, _: functional.relu(inputs[0]),
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean((2, 3), keepdim=True),
    "Flatten": lambda inputs, _: inputs[0].flatten(1),
}
