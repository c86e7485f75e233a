"""Diff: in what two engines, graphs or recipes differ. A is what B is compared with."""

from __future__ import annotations

from toolkit.harness.verdict import Verdict
from toolkit.types import Frozen


class Difference(Frozen, frozen=True):
    """A key that the two have different values for, as text; empty where one lacks it."""

    key: str
    a: str
    b: str


class LayerDiff(Frozen, frozen=True):
    """A layer that both have, by its node's name. Ratios in dB; None where there is no difference, or nothing to compare.

    `snr` is that of B's result against A's, on the same images; `scaled` the same once each channel of B has its best scale and
    offset: what equalization changes is no loss. `weights` is that of B's dequantized weights, `scaled_weights` likewise.
    `scales` are those of the pairs on what the layer reads first.
    """

    name: str
    kind: str
    precision: tuple[str, str]
    scales: tuple[float | None, float | None] = (None, None)
    weights: float | None = None
    scaled_weights: float | None = None
    snr: float | None = None
    scaled: float | None = None

    @property
    def differs(self) -> bool:
        """Whether anything about the layer does."""
        same = self.precision[0] == self.precision[1] and self.scales[0] == self.scales[1]
        return not same or self.weights is not None or self.snr is not None


class Latency(Frozen, frozen=True):
    """Milliseconds of a call at `batch`, taken in turns; `ratio` is B's median over A's, with its 95 % interval."""

    batch: int
    p50: tuple[float, float]
    ratio: float
    interval: tuple[float, float] | None  # None where the blocks are too few


class Diff(Frozen, frozen=True):
    """`operators` are (operator, how many in A, in B) where the numbers differ; `only`: the nodes that one alone has, by name."""

    names: tuple[str, str]
    kinds: tuple[str, str]  # engine | graph | recipe
    targets: tuple[str, str]
    nodes: tuple[int, int]
    recipe: tuple[Difference, ...]
    operators: tuple[tuple[str, int, int], ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    layers: tuple[LayerDiff, ...]
    images: int = 0
    logits: float | None = None  # dB of B's logits against A's; None where they are the same
    latency: Latency | None = None
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the two graphs are node for node the same and answer alike."""
        return not self.operators and not any(self.only) and not any(layer.differs for layer in self.layers)
