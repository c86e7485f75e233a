"""Select: the settings of INT8 that bring the logits nearest, measured on images that the ranges were not drawn from.

What a recipe leaves open (`auto`) is chosen in this order: equalization, calibration method, how weights are rounded, bias
correction, and then another method for single parts of the network. Each step keeps what stands unless an alternative is better
by more than `WORTH` and surely so over the images (one-sided 95 % by the jackknife): a few images must not decide what they
cannot tell. But where one image holds most of the noise no gain is ever sure, and it is likely that other images will include
such a one too: a gain of `FAR` counts as it is. So what is chosen is never further than that below the best that was seen.
The order of alternatives and the images are fixed, so the same inputs give the same choice.

A network that ends in a Softmax is judged by what the Softmax reads: probabilities of images that it is sure of say nothing, a
few others would decide alone. Weights are rounded once (`rounded.py`), and serve every candidate that shares their equalization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit.calibration import Ranges
from toolkit.graph.channels import IMAGES, LANES, Real, lane_threads
from toolkit.graph.equalize import Mode, channel_sets, evidence
from toolkit.graph.gain import gain_of
from toolkit.graph.prescale import equalized, equalized_by, has_functions
from toolkit.graph.qdq import Scheme, quantize
from toolkit.graph.rounded import Rounded, Roundings
from toolkit.graph.run import graph_runner
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.softmax import before_softmax, centered, ends_in_softmax
from toolkit.graph.weights import Room
from toolkit.harness.answers import decibels
from toolkit.images.ahead import read_ahead
from toolkit.recipe import Calibration, Precision
from toolkit.types import Classifier, Float

WORTH = 0.2  # dB
PRICE = {"activations": 1.0}  # dB, for what costs time
SURE = 1.64  # standard errors: one-sided 95 %
FAR, OF = 3.0, 32  # dB over this many images, and by the root of their number more over fewer: a gain that need not be sure
SHARE = 24  # images that equalizations are compared by
BATCH = 8  # images that a candidate answers at once
LEAST = 4  # images without which nothing is chosen
PARTS = 4  # of the network's tensors, in its order, that may have a method of their own
SIMPLE: dict[str, Any] = {
    "method": "mse", "equalize": "streams", "weights": "absmax", "rounding": "nearest", "bias_correction": False,
}  # fmt: skip
START = {**SIMPLE, "rounding": "compensated", "bias_correction": True}
OTHERS: dict[str, tuple[Any, ...]] = {
    "method": ("minmax", "percentile", "entropy"),
    "rounding": ("nearest",),
    "bias_correction": (False,),
}


def lane_runner(graph: ir.Model) -> Classifier:
    """Of one of LANES graphs that run at a time."""
    return graph_runner(graph, lane_threads())


class Settings(NamedTuple):
    """A way to quantize: what stands in `[precision]` and `[calibration]`."""

    precision: Precision
    calibration: Calibration

    def having(self, **changes: Any) -> Settings:
        """The same but for these keys of either table."""
        method = {"method": changes.pop("method")} if "method" in changes else {}
        return Settings(msgspec.structs.replace(self.precision, **changes), msgspec.structs.replace(self.calibration, **method))

    def value(self, key: str) -> str:
        """What stands under a key, for a reader."""
        found = self.calibration.method if key == "method" else getattr(self.precision, key)
        return "one for all" if key == "methods" and not found else str(found)

    @property
    def open(self) -> tuple[str, ...]:
        """The keys that are left to measurement; of FP8 only how to equalize, as it makes no use of the others (`fp8.py`)."""
        return tuple(key for key in self.unset if key == "equalize" or not self.precision.fp8)

    @property
    def unset(self) -> tuple[str, ...]:
        """The keys that nobody has set yet."""
        given = {
            "equalize": self.precision.equalize,
            "method": self.calibration.method,
            "weights": self.precision.weights,
            "rounding": self.precision.rounding,
            "bias_correction": self.precision.bias_correction,
        }
        return tuple(key for key, value in given.items() if value in ("auto", None))

    def simply(self) -> Settings:
        """What is not set set to the simple choice, without measurement."""
        return self.having(**{key: SIMPLE[key] for key in self.unset})

    def measured(self) -> Settings:
        """What is open set to what the search begins with, and what else is not set to the simple choice."""
        return self.having(**{key: START[key] for key in self.open}).simply()


class Selected(NamedTuple):
    """The choice, the equalized FP32 graph that it is for, its ranges and rounded weights, and the reasons, a line each."""

    settings: Settings
    graph: ir.Model
    ranges: Ranges
    roundings: Roundings
    reasons: tuple[str, ...]


class _Try(NamedTuple):
    name: str
    settings: Settings
    graph: ir.Model
    ranges: Ranges


class _Change(NamedTuple):
    """Another value for one key; for `methods`, entries that are added."""

    key: str
    name: str
    values: dict[str, Any]

    def of(self, settings: Settings) -> Settings:
        values = {"methods": {**settings.precision.methods, **self.values}} if self.key == "methods" else self.values
        return settings.having(**values)


class _Candidate(NamedTuple):
    name: str
    settings: Settings
    noise: Real  # [images]: summed squared error of the logits


def select(
    graph: ir.Model,
    settings: Settings,
    images: Sequence[Float],
    held: Float,
    collect: Callable[[ir.Model, bool], Ranges],
    *,
    scheme: Scheme,
    room: Room,
    runner: Callable[[ir.Model], Classifier] = lane_runner,
    roundings: Roundings | None = None,
) -> Selected:
    """Choose what `settings` leave open for the FP32 `graph`.

    `images`: the first calibration images [1, ...] that ranges are drawn from; `held`: others [n, ...], that tell how good a
    choice is. `collect(graph, whole)` gives the ranges of a graph, from all calibration images or from a share that is enough to
    compare equalizations. `runner` runs a quantized graph as the target computes, LANES at a time. `roundings` are taken from
    `images` where none are given. Raises CalibrationError, GraphError.
    """
    roundings = roundings or Roundings(lambda pixels: images)
    return _Selection(graph, settings, images, held, collect, scheme, room, runner, roundings).run()


class _Selection:
    """Mutable while it runs."""

    def __init__(
        self,
        graph: ir.Model,
        settings: Settings,
        images: Sequence[Float],
        held: Float,
        collect: Callable[[ir.Model, bool], Ranges],
        scheme: Scheme,
        room: Room,
        runner: Callable[[ir.Model], Classifier],
        roundings: Roundings,
    ) -> None:
        self.plain, self.open, self.now = graph, settings.open, settings.measured()
        self.few, self.held, self.collect = images[:IMAGES], held, collect
        self.scheme, self.room, self.runner, self.roundings = scheme, room, runner, roundings
        self.truth = self._answers(graph_runner(before_softmax(graph)), ends_in_softmax(graph))
        self.reasons: list[str] = []

    def run(self) -> Selected:
        graph = self._equalized()
        ranges = self.collect(graph, True)
        names = [str(self.now.calibration.method), *(OTHERS["method"] if "method" in self.open else ())]
        tried = [_Try(name, self.now.having(method=name), graph, ranges) for name in names]
        best, *others = self._measured(tried)
        if others:
            best = self._better("method", [best, *others])
        best = self._chain(best, self._changes(best, graph, ranges), graph, ranges)
        last = f"auto: SNR of the logits {self._snr(best):.1f} dB on {len(self.held)} calibration images held back for the choice"
        return Selected(best.settings, graph, ranges, self.roundings, (*self.reasons, last))

    def _equalized(self) -> ir.Model:
        """The graph with the channel scales that bring most. They are compared with ranges by a few images and weights as
        `SIMPLE` has them."""
        simple = self.now.precision.equalize
        kinds: tuple[Mode, ...] = (simple,)
        if "equalize" in self.open:
            sets = channel_sets(self.plain)
            kinds = (*kinds, *(("pairs", "none") if any(found.stream for found in sets) else ("none",) if sets else ()))
            kinds = (*kinds, "activations") if has_functions(self.plain) else kinds
        if len(kinds) == 1:
            return equalized(self.plain, simple, self.few)
        seen = evidence(self.plain, simple, self.few)
        plain = self.now.having(rounding="nearest", bias_correction=False)
        graphs: dict[str, ir.Model] = {}

        def tries() -> Iterator[_Try]:
            ready = read_ahead(kinds, lambda kind: equalized_by(self.plain, kind, seen, self.few), LANES)
            for kind, graph in zip(kinds, ready, strict=True):
                graphs[kind] = graph
                yield _Try(kind, plain.having(equalize=kind), graph, self.collect(graph, False))

        best = self._better("equalize", self._measured(tries())).name
        self.now = self.now.having(equalize=best)
        return graphs[best]

    def _changes(self, best: _Candidate, graph: ir.Model, ranges: Ranges) -> list[_Change]:
        """What is tried one after the other: rounding, bias, then another method for each quarter of the tensors."""
        keys = [key for key in ("rounding", "bias_correction") if key in self.open]
        found = [_Change(key, str(value), {key: value}) for key in keys for value in OTHERS[key]]
        names = [name for name in watched(graph) if name in ranges.tensors] if "method" in self.open else []
        other = "minmax" if best.settings.calibration.method != "minmax" else "mse"
        for part in np.array_split(np.array(names, object), min(PARTS, len(names))) if names else ():
            found.append(_Change("methods", f"{other} for {part[0]} .. {part[-1]}", dict.fromkeys(part.tolist(), other)))
        return found

    def _chain(self, best: _Candidate, changes: Sequence[_Change], graph: ir.Model, ranges: Ranges) -> _Candidate:
        """Each change against the best so far. As most are turned down, LANES of them are tried at a time on what stands; those
        behind one that is taken are tried again on that."""
        while changes:
            tried = self._measured(_Try(one.name, one.of(best.settings), graph, ranges) for one in changes[:LANES])
            for candidate in tried:
                (change, *changes), before = changes, best
                best = self._better(change.key, [best._replace(name=best.settings.value(change.key)), candidate])
                if best.settings is not before.settings:
                    break
        return best

    def _better(self, key: str, candidates: Sequence[_Candidate]) -> _Candidate:
        """The first, unless another is surely nearer, or by far; the reason is kept where there is something to say."""
        best, sure = candidates[0], True
        for other in candidates[1:]:
            gain, error = gain_of(best.noise, other.noise)
            if gain > max(PRICE.get(other.name, WORTH), min(SURE * error, FAR * (OF / len(self.held)) ** 0.5)):
                best, sure = other, gain > SURE * error
        seen = ", ".join(f"{one.name} {self._snr(one):.1f}" for one in candidates if one is not best)
        if key != "methods" or best is not candidates[0]:
            unsure = "" if sure else ": few images make the difference"
            unsure = ": not clearly better" if any(self._snr(one) > self._snr(best) for one in candidates) else unsure
            self.reasons.append(f"auto: {key} = {best.name}, {self._snr(best):.1f} dB ({seen}{unsure})")
        return best

    def _measured(self, tried: Iterable[_Try]) -> list[_Candidate]:
        """Each candidate's noise; as many at a time as there are lanes."""
        ready = ((one, self.roundings.of(one.graph, one.settings.precision, self.room)) for one in tried)
        return list(read_ahead(ready, lambda pair: self._measure(*pair), LANES))

    def _measure(self, one: _Try, rounded: Mapping[str, Rounded]) -> _Candidate:
        quantized = quantize(
            one.graph, one.ranges, one.settings.precision, one.settings.calibration,
            scheme=self.scheme, room=self.room, rounded=rounded,
        )  # fmt: skip
        answers = self._answers(self.runner(before_softmax(quantized)), ends_in_softmax(quantized))
        noise = ((answers - self.truth) ** 2).sum(axis=1)
        return _Candidate(one.name, one.settings, np.where(np.isfinite(noise), noise, np.inf))

    def _answers(self, runner: Classifier, soft: bool) -> Real:
        """BATCH images at a time: activations of more would not fit the cache."""
        parts = [runner(self.held[i : i + BATCH]) for i in range(0, len(self.held), BATCH)]
        return centered(np.concatenate(parts), soft)

    def _snr(self, candidate: _Candidate) -> float:
        return decibels(float((self.truth**2).sum()), float(candidate.noise.sum()))
