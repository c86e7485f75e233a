"""Why: what was found of an engine's loss of accuracy, layer by layer, and the remedies that a run has checked."""

from __future__ import annotations

from toolkit.recipe import Recipe
from toolkit.types import Frozen

PARTS = ("weights", "clipping", "rounding")


class Worst(Frozen, frozen=True):
    """A channel or an image of one layer that suffers most: its SNR in dB and its share of the layer's noise, 0 to 1."""

    name: str
    snr: float | None
    share: float


class LayerLoss(Frozen, frozen=True):
    """One layer. Ratios are signal to noise power in dB; None where there is no noise.

    `snr` is that of its result in the engine, `born` what it would be if only this layer were narrowed, `inherited` if this layer
    were not. `weights`, `clipping` and `rounding` (of activations) are shares of what is born, `share` is this layer's part of
    the loss at the logits, all 0 to 1; `alone` is the SNR of the logits where only this layer is narrowed.
    """

    name: str
    kind: str  # the ONNX operator
    precision: str  # int8 | fp16 | fp32
    reads: tuple[str, ...]  # the tensors it reads
    output: str
    snr: float | None
    born: float | None
    inherited: float | None
    weights: float = 0.0
    clipping: float = 0.0
    rounding: float = 0.0
    share: float = 0.0
    alone: float | None = None
    work: float = 0.0  # share of the network's multiply-adds
    time: float | None = None  # share of the engine's time, where its backend tells it
    peak: float = 0.0  # the largest magnitude of its result; float16 ends at 65504
    channels: tuple[Worst, ...] = ()
    images: tuple[Worst, ...] = ()

    @property
    def cause(self) -> str:
        """What most of the noise born here comes from, in a word or two."""
        if self.born is None:
            return ""
        part = max(PARTS, key=lambda name: float(getattr(self, name)))
        if self.precision == "fp16" and self.peak > 65504:
            return "overflow"
        return {"weights": "weights", "clipping": "clipping", "rounding": "rounding"}[part]


class Remedy(Frozen, frozen=True):
    """A change of the recipe that was tried: `snr` and `agreement` of the logits before and after, on images not analysed.

    `time` is the engine's time with it over that without, None where nothing but constants changes; `measured` tells whether a
    clock or the cost model says so.
    """

    what: str  # in a recipe's own words
    recipe: Recipe
    why: str
    snr: tuple[float, float]
    agreement: tuple[float, float]
    time: float | None = None
    measured: bool = False

    @property
    def gain(self) -> float:
        """dB won back."""
        return self.snr[1] - self.snr[0]

    @property
    def value(self) -> float:
        """What remedies are ranked by: the gain in dB, less 1 dB for each 5 % of time."""
        return self.gain - 20 * max(0.0, (self.time or 1.0) - 1)


class Why(Frozen, frozen=True):
    """`snr` and `agreement` of the engine's logits against FP32's on `images` images; `emulated` is the SNR where every layer
    computes as the graph says: an engine that is worse loses the rest in its kernels. Of a network that ends in a `softmax`,
    `snr` is that of its probabilities, and every other ratio one of what the Softmax reads."""

    engine: str
    target: str
    precision: str
    images: int
    snr: float
    emulated: float
    agreement: float
    layers: tuple[LayerLoss, ...]
    edges: tuple[tuple[str, str], ...]  # between layers, by name: which reads which
    worst_images: tuple[Worst, ...] = ()
    remedies: tuple[Remedy, ...] = ()  # the best first; only those that won something back
    tried: tuple[Remedy, ...] = ()  # those that did not
    proof_images: int = 0
    softmax: bool = False
    notes: tuple[str, ...] = ()

    @property
    def ranked(self) -> tuple[LayerLoss, ...]:
        """The layers, the one that costs the logits most first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.share))
