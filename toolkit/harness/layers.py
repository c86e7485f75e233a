"""LayerTimes: where an engine's time goes, node by node, as its backend's own profiler tells it."""

from __future__ import annotations

from collections import defaultdict

from toolkit.types import Frozen


class Layer(Frozen, frozen=True):
    """One node of the compiled graph: its name, its operator there (after fusion), and its median time."""

    name: str
    kind: str
    milliseconds: float
    of: str = ""  # the layer of the original network that it belongs to; empty where it belongs to none


class NetworkLayer(Frozen, frozen=True):
    """One layer of the network under its original name: the layers whose results it reads, and what it computes in."""

    name: str
    kind: str  # the ONNX operator
    precision: str  # int8 | fp8 | fp16 | bf16 | fp32
    reads: tuple[str, ...] = ()


class LayerTimes(Frozen, frozen=True):
    """All nodes of one engine at one batch, in the order they ran. A profiler costs time itself: shares count, not sums."""

    engine: str
    batch: int
    runs: int
    layers: tuple[Layer, ...]
    network: tuple[NetworkLayer, ...] = ()

    @property
    def total(self) -> float:
        """Milliseconds of all nodes."""
        return sum(layer.milliseconds for layer in self.layers)

    def by_layer(self) -> dict[str, float]:
        """Milliseconds by the layers of the original network; what belongs to none is left out."""
        times: dict[str, float] = dict.fromkeys((layer.name for layer in self.network), 0.0)
        for layer in self.layers:
            if layer.of:
                times[layer.of] = times.get(layer.of, 0.0) + layer.milliseconds
        return times

    def slowest(self, count: int) -> list[Layer]:
        return sorted(self.layers, key=lambda layer: -layer.milliseconds)[:count]

    def by_kind(self) -> list[tuple[str, int, float]]:
        """(operator, how many, milliseconds), the slowest first."""
        count: dict[str, int] = defaultdict(int)
        time: dict[str, float] = defaultdict(float)
        for layer in self.layers:
            count[layer.kind] += 1
            time[layer.kind] += layer.milliseconds
        return sorted(((kind, count[kind], time[kind]) for kind in time), key=lambda row: -row[2])
