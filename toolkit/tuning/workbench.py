"""Workbench: makes the graph of any variation of a recipe, and says how near its logits are to the reference's."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit import pipeline
from toolkit.errors import BudgetError, RecipeError
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.answers import snr
from toolkit.harness.verdict import Verdict
from toolkit.pipeline import Trip
from toolkit.recipe import Precision, Recipe
from toolkit.tuning.cost import cost, int8_share
from toolkit.tuning.memo import Memo
from toolkit.tuning.trial import Half, Trial
from toolkit.types import Classifier, Progress, Stage, Target, quiet

IMAGES = 64  # calibration images whose logits tell one graph from another: enough for tenths of a dB
LIMIT = 60  # graphs that one search may evaluate


class Workbench:
    """Holds the reference's answers, the equalized graphs and their ranges: a trial costs one quantization and one run."""

    def __init__(
        self, recipe: Recipe, stage: Stage = quiet, limit: int = LIMIT, targets: tuple[Target, ...] | None = None
    ) -> None:
        images = pipeline.proof_images(recipe)
        if images is None:
            raise RecipeError(f"{recipe.name} names no images to be accurate on", remedy="Set `data` in the recipe's [accept]")
        if images.count < 4:
            raise RecipeError(f"[accept] has {images.count} images; half of them must be held out", remedy="Name more images")
        self.recipe = vary(recipe, int8=True)
        self.targets = targets or Target.parse_many(recipe.build.target)[:1]
        self.target = self.targets[0]  # all of them take the same graph
        self.batch = recipe.build.profiles[0][1]
        self.limit, self.evaluations = limit, 0
        self._memo = Memo(str(self.target))
        self.search, self.held_out = Half(images, 0), Half(images, 1)
        self.stage = stage
        first = pipeline.prepare(self.recipe, stage)
        assert first.truth is not None
        self.truth, self.recipe = first.truth, first.recipe  # with the settings that it left open
        self.meaning = first.source.reference.manifest.meaning
        self._trips: dict[str, Trip] = {self.recipe.precision.equalize: first}  # by equalization; '' for those without INT8
        self._few = np.concatenate(list(pipeline.calibration_images(recipe).batches(IMAGES))[:1])
        self._few_truth = graph_runner(first.source.graph)(self._few)

    @property
    def left(self) -> int:
        """How many more graphs may be evaluated."""
        return self.limit - self.evaluations

    def graph(self, recipe: Recipe) -> ir.Model:
        """The typed graph of a variation of the recipe, for the recipe's target."""
        return pipeline.typed(self.trip(recipe), self.target)

    def fp32(self) -> ir.Model:
        """The graph before any pass."""
        return self.trip(vary(self.recipe, int8=False, keep=())).source.graph

    def trial(self, name: str, recipe: Recipe) -> Trial:
        """Evaluate one graph. Raises BudgetError once the limit is spent, which no caller in this room lets happen."""
        if self.left < 1:
            raise BudgetError(f"the search has used its {self.limit} evaluations", remedy="Raise the limit: 16 or more")
        self.evaluations += 1
        graph = self.graph(recipe)

        def evaluate() -> float:
            return snr(self._few_truth, predicting_runner(graph, self.target)(self._few))

        near = self._memo.once(float, (graph, self._few, self._few_truth), evaluate)
        return Trial(name=name, recipe=recipe, snr=near, cost=cost(graph, self.batch), int8=int8_share(graph))

    @property
    def resumed(self) -> int:
        """How many answers an earlier search, ended before its time, had left."""
        return self._memo.found

    def judge(self, trial: Trial, *, held_out: bool, runner: Classifier | None = None) -> Trial:
        """The trial with a verdict on one half of the images of `[accept]`, as `runner` answers; absent: its graph on the CPU."""
        half = self.held_out if held_out else self.search
        accept = self.recipe.accept
        words = "the images held out" if held_out else "the search's images"
        progress: Progress = self.stage(f"{trial.name} on {words}")
        truth = half.of(self.truth)

        def compare(live: Classifier) -> Verdict:
            answers = answers_of(live, half, name=trial.name, progress=progress)
            return compare_accuracy(truth, answers, half.labels, accept, name=trial.name, meaning=self.meaning)

        if runner is not None:
            verdict = compare(runner)
        else:
            graph = self.graph(trial.recipe)
            asked = (graph, truth, half.labels, half.sha256, words, trial.name, accept, self.meaning)
            verdict = self._memo.once(Verdict, asked, lambda: compare(predicting_runner(graph, self.target)))
        return msgspec.structs.replace(trial, **{"held_out" if held_out else "searched": verdict})

    def runner(self, recipe: Recipe, threads: int | None = None) -> Classifier:
        """The graph of a variation on ONNX Runtime's CPU, rounded as the target rounds."""
        return predicting_runner(self.graph(recipe), self.target, threads)

    def few(self, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """A batch of `count` calibration images, repeated where there are fewer."""
        return np.ascontiguousarray(self._few[np.arange(count) % len(self._few)])

    def trip(self, recipe: Recipe) -> Trip:
        """How far a variation of the recipe has come before its target is chosen."""
        first = next(iter(self._trips.values()))
        precision = recipe.precision
        key = precision.equalize if precision.quantized else ""
        if key not in self._trips and precision.quantized:
            self._trips[key] = pipeline.prepare(recipe, self.stage, like=first)
        elif key not in self._trips:
            self._trips[key] = first._replace(graph=first.source.graph, ranges=None, peaks={})
        trip = self._trips[key]
        if precision.compute == "fp16" and not trip.peaks and recipe.calibration_data is not None:
            peaks = pipeline.peaks(trip.graph, pipeline.calibration_images(recipe))
            self._trips[key] = trip = trip._replace(peaks=peaks)
        return trip._replace(recipe=recipe)


def vary(recipe: Recipe, **precision: object) -> Recipe:
    """The recipe with other fields of `[precision]`; without INT8, what belongs to INT8 goes."""
    if "int8" in precision:
        precision = {"fp8": False, **precision}
    if precision.get("int8") is False:
        precision = {"keep": (), "methods": {}, "pools": False, **precision}
    new: Precision = msgspec.structs.replace(recipe.precision, **precision)
    return msgspec.structs.replace(recipe, precision=new)


def calibrated(recipe: Recipe, **calibration: object) -> Recipe:
    """The recipe with other fields of `[calibration]`."""
    return msgspec.structs.replace(recipe, calibration=msgspec.structs.replace(recipe.calibration, **calibration))
