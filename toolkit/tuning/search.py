"""Search: from what a recipe says to a handful of graphs worth measuring, in at most 60 evaluations.

1. The whole network in INT8: calibration method, equalization, weight scales, rounding and bias correction, one after the other;
   a change stays where it brings the logits 0.1 dB nearer.
2. Sensitivity of each part (`sensitivity.py`).
3. Another method for the tensors of the three most sensitive parts.
4. Parts leave INT8, the most dB for the least work first, until the budget is met on the search's images; then two more, for
   those who would pay for accuracy.

For TensorRT and TensorRT-RTX what is not INT8 is FP16 (step 1), and more graphs are worth measuring: FP8 in the same places, from
which parts leave in the same order, and, where the GPU is available, other places for the pairs (`places.py`).
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import msgspec

from toolkit.errors import CalibrationError, GraphError, MeasurementError
from toolkit.graph.edges import origin
from toolkit.graph.edit import weight_of
from toolkit.graph.fp8 import FIRST_SM
from toolkit.recipe import Method, Recipe
from toolkit.tuning.parts import Unit, units, why_few
from toolkit.tuning.places import other_places
from toolkit.tuning.sensitivity import sensitivity
from toolkit.tuning.trial import Sensitivity, Trial
from toolkit.tuning.ways import gpu_of
from toolkit.tuning.workbench import Workbench, calibrated, vary
from toolkit.types import Progress

WORTH = 0.1  # dB
CHOICES: dict[str, tuple[object, ...]] = {
    "equalize": ("streams", "pairs", "none"),
    "weights": ("absmax", "mse"),
    "rounding": ("nearest", "compensated"),
    "bias_correction": (False, True),
}
FOR_THE_REST = 8  # evaluations that the last step needs
FOR_A_GPU = 10  # and those that FP16 around the pairs, FP8 and other places take
HALF_COSTS = 3.0  # dB that FP16 around INT8 may cost: twice the noise; the budget has the last word


class Found(NamedTuple):
    """Every graph tried, those worth measuring, and why the search went where it went."""

    trials: list[Trial]
    finalists: list[Trial]
    sensitivity: list[Sensitivity]
    reasons: list[str]


class Search:
    """Mutable while it runs; `run` gives what stays."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.trials: list[Trial] = []
        self.reasons: list[str] = []
        self.layers: list[Sensitivity] = []
        self.gpu = gpu_of(bench.target)
        self.rest = FOR_THE_REST + (FOR_A_GPU if bench.target.is_nvidia else 0)
        self._advance: Progress = bench.stage("search")

    def run(self) -> Found:
        finalists = self._floating()
        best = self._try("int8", self.bench.recipe)
        best = self._globals(best)
        parts = units(self.bench.fp32())
        room = (self.bench.left - self.rest - 6) // 2
        if reason := why_few(parts):
            self.reasons.append(reason)
        if room < len(parts):
            few = units(self.bench.fp32(), max(1, room))
            self.reasons.append(f"of {len(parts)} parts {len(few)} were made: {self.bench.limit} evaluations allow no more")
            parts = few
        self.layers = sensitivity(self.bench, best, parts)
        best = self._tensors(best, parts)
        finalists += self._leave_out(best, "int8", "INT8")
        finalists += self._fp8(best)
        finalists += self._places(finalists, best)
        return Found(self.trials, finalists, self.layers, self.reasons)

    def _try(self, name: str, recipe: Recipe) -> Trial:
        trial = self.bench.trial(name, recipe)
        self.trials.append(trial)
        return trial

    def _floating(self) -> list[Trial]:
        """FP32 and FP16: what INT8 has to beat."""
        recipe = self.bench.recipe
        found = []
        for kind in ("fp32", "fp16"):
            try:
                found.append(self._try(kind, vary(recipe, int8=False, compute=kind)))
            except GraphError as error:  # a constant that FP16 cannot hold
                self.reasons.append(f"{kind} is excluded: {error.what}")
        return [judged for trial in found if (judged := self._judge(trial)) is not None]

    def _fp8(self, best: Trial) -> list[Trial]:
        """FP8 in the same places, where every GPU of the target has it: long tails cost it less than INT8."""
        target = self.bench.target
        if not target.is_nvidia:
            return []
        least = self.gpu if target.kind == "tensorrt" else target.sm
        if least is None:
            self.reasons.append("fp8 was not tried: TensorRT builds for the GPU that it runs on, and none is here")
        elif least < FIRST_SM:
            self.reasons.append(f"fp8 was not tried: sm{least} has none, which begins with sm{FIRST_SM}")
        elif self.bench.left < 2:
            self.reasons.append("fp8 was not tried: the limit of evaluations is reached")
        else:
            trial = self._try("fp8", vary(best.recipe, int8=False, fp8=True, compute="fp16", keep=best.recipe.precision.keep))
            self.reasons.append(f"fp8: {trial.snr:.1f} dB, int8 {best.snr:.1f}")
            return self._leave_out(trial, "fp8", "FP8", beyond=0, spare=self.rest - FOR_A_GPU)
        return []

    def _places(self, found: list[Trial], best: Trial) -> list[Trial]:
        """The first INT8 graph that is accurate, with its pairs in other places; only a clock can tell what those bring."""
        if not self.bench.target.is_nvidia:
            return []
        if self.gpu is None:
            self.reasons.append(f"places of the pairs were not varied: no GPU is here that measures {self.bench.target}")
            return []
        base = next((trial for trial in found if trial.accurate and trial.recipe.precision.int8), best)
        tried = []
        for name, precision in other_places(self.bench.fp32(), base.recipe.precision).items():
            if self.bench.left < 1:
                self.reasons.append("not every place for the pairs was tried: the limit of evaluations is reached")
                break
            try:
                trial = self._try(f"{base.name}, {name}", vary(base.recipe, **precision))
            except CalibrationError as error:  # nothing is left to quantize, or a tensor has no range
                self.reasons.append(f"{name} was not tried: {error.what}")
                continue
            judged = self._judge(trial)
            tried += [msgspec.structs.replace(judged, over=base.name)] if judged is not None else []
        return tried

    def _judge(self, trial: Trial) -> Trial | None:
        """The trial with its verdict on the search's images; None, with the reason, where its answers are not finite."""
        try:
            return self.bench.judge(trial, held_out=False)
        except MeasurementError as error:
            self.reasons.append(f"{trial.name} is excluded: {error.what}")
            return None

    def _globals(self, best: Trial) -> Trial:
        self._advance = self.bench.stage("search: method, equalization, weights, bias")
        recipe = best.recipe
        given = recipe.calibration.method
        methods = {str(method): calibrated(recipe, method=method) for method in get_args(Method) if method not in (given, "auto")}
        best = self._take(best, "calibration method", str(given), methods)
        if best.recipe.calibration.method == "percentile":
            wider = {str(p): calibrated(best.recipe, percentile=p) for p in (99.9, 99.999)}
            best = self._take(best, "percentile", str(best.recipe.calibration.percentile), wider)
        for key, values in CHOICES.items():
            now = getattr(best.recipe.precision, key)
            others = {str(value): vary(best.recipe, **{key: value}) for value in values if value != now}
            best = self._take(best, key, str(now), others)
        return self._halved(best) if self.bench.target.is_nvidia and best.recipe.precision.compute == "fp32" else best

    def _halved(self, best: Trial) -> Trial:
        """FP16 for all that is not INT8, unless that costs accuracy: TensorRT computes FP32 at half its speed and less."""
        try:
            half = self._try("int8 in fp16", vary(best.recipe, compute="fp16"))
        except GraphError as error:  # a constant that FP16 cannot hold
            self.reasons.append(f"int8 in fp16 is out: {error.what}")
            return best
        taken = half.snr >= best.snr - HALF_COSTS
        seen = f"Logits to noise, in dB: fp32 {best.snr:.1f}, fp16 {half.snr:.1f}"
        self.reasons.append(f"around INT8: {'fp16' if taken else 'fp32'}. {seen}")
        return half if taken else best

    def _take(self, best: Trial, what: str, now: str, others: dict[str, Recipe]) -> Trial:
        """The best of what stands and its variations, with the reason."""
        tried = []
        for name, recipe in others.items():
            tried.append(self._try(name, recipe))
            self._advance(self.bench.evaluations, self.bench.limit)
        winner = max(tried, key=lambda trial: trial.snr)
        better = winner.snr >= best.snr + WORTH
        seen = ", ".join(f"{trial.name} {trial.snr:.1f}" for trial in tried)
        self.reasons.append(f"{what}: {winner.name if better else now}. SNR of the logits, in dB: {now} {best.snr:.1f}, {seen}")
        return winner if better else best

    def _tensors(self, best: Trial, parts: list[Unit]) -> Trial:
        """Another method for what the three most sensitive parts read."""
        worst = sorted(self.layers, key=lambda layer: layer.alone)[:3]
        self._advance = self.bench.stage("search: methods of the most sensitive parts")
        for layer in worst:
            part = next(part for part in parts if part.name == layer.unit)
            names = _inputs(part)
            now = best.recipe.calibration.method
            alternatives: list[Method] = [m for m in ("minmax", "mse", "entropy") if m != now][:2]
            if not names or self.bench.left < self.rest + len(alternatives):
                break
            others: dict[str, Recipe] = {}
            for method in alternatives:
                methods = {**best.recipe.precision.methods, **dict.fromkeys(names, method)}
                others[method] = vary(best.recipe, methods=methods)
            best = self._take(best, f"method of {part.name}", now, others)
        return best

    def _leave_out(self, best: Trial, name: str, kind: str, *, beyond: int = 2, spare: int = 0) -> list[Trial]:
        """Graphs from all INT8 (or FP8) to ever less, the first of which that meets the budget and `beyond` more. `spare`
        evaluations are left for others."""
        best = msgspec.structs.replace(best, name=name)
        found = [judged] if (judged := self._judge(best)) is not None else []
        order = sorted(self.layers, key=lambda layer: (layer.left_out - best.snr) / (layer.share + 0.01), reverse=True)
        current, further = best, 0
        for layer in order:
            further += bool(found) and found[-1].accurate
            if further > beyond or self.bench.left < 2 + spare:
                break
            keep = tuple(dict.fromkeys((*current.recipe.precision.keep, *layer.keep)))
            label = f"{current.name}{' but ' if current is best else ', '}{layer.unit}"
            try:
                trial = self._try(label, vary(best.recipe, keep=keep))
            except CalibrationError:  # nothing is left to quantize: what remains is the floating-point engine, a finalist already
                break
            gain = f"{trial.snr:.1f} dB instead of {current.snr:.1f}, for {layer.share:.1%} of the work"
            self.reasons.append(f"{layer.unit} out of {kind}: {gain}")
            current = trial
            found += [judged] if (judged := self._judge(trial)) is not None else []
        return found


def _inputs(part: Unit) -> list[str]:
    """The tensors that a unit's layers read, by the names that ranges have."""
    values = [node.inputs[0] for node in part.nodes if weight_of(node) is not None and node.inputs[0] is not None]
    return list(dict.fromkeys(origin(value).name or "" for value in values))
