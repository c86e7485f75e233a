"""Trials: the runs that check a remedy. Each change of the recipe becomes a graph, which answers images not analyzed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit import pipeline
from toolkit.errors import ToolkitError
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.graph.softmax import before_softmax, centered, ends_in_softmax
from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.answers import snr
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.outputs import Outputs
from toolkit.recipe import Recipe
from toolkit.trip import Trip
from toolkit.tuning.cost import cost
from toolkit.types import Classifier, Float, Stage, Target
from toolkit.why.remedies import WORTH, Suggestion, joined, suggestions, weighed
from toolkit.why.result import LayerLoss, Remedy
from toolkit.why.subject import Subject

CALIBRATION = 64  # images that a remedy which needs new ranges is tried with
SECONDS, LAUNCHES = 0.8, 3  # of both engines, where time is measured, and how often they are opened for it


class Bench:
    """Mutable while remedies are tried: graphs and answers that several of them share."""

    def __init__(self, subject: Subject, trip: Trip) -> None:
        self.subject, self._trip = subject, trip
        self.target = subject.manifest.to_target()
        self._soft = ends_in_softmax(trip.source.graph)
        self.truth = self._answers(graph_runner(before_softmax(trip.source.graph)))
        self._trips = {trip.recipe.precision.equalize: trip}
        self.base = self.graph(trip.recipe)
        self.before = self._score(self.base)

    @property
    def recipe(self) -> Recipe:
        """The recipe that the engine was built from."""
        return self.subject.recipe

    def graph(self, recipe: Recipe) -> ir.Model:
        """The typed graph of a variation for the engine's target. Raises ToolkitError where it cannot be made."""
        mode = recipe.precision.equalize
        if mode not in self._trips:
            few = msgspec.structs.replace(recipe.calibration, images=CALIBRATION, ranges=None)
            again = msgspec.structs.replace(recipe, calibration=few)
            self._trips[mode] = pipeline.prepare(again, proof=False, like=self._trip)
        return pipeline.typed(self._trips[mode]._replace(recipe=recipe), self.target)

    def prove(self, change: Suggestion) -> Remedy:
        """Run it. Raises ToolkitError where the graph cannot be made, such as where nothing is left to quantize."""
        graph = self.graph(change.recipe)
        after = self._score(graph)
        time, measured = (None, False) if change.free else self._time(graph)
        return Remedy(
            what=change.what,
            recipe=change.recipe,
            why=change.why,
            snr=(self.before[0], after[0]),
            agreement=(self.before[1], after[1]),
            time=time,
            measured=measured,
        )

    @property
    def _threads(self) -> int | None:
        threads = self.subject.manifest.settings.get("threads")
        return int(threads) if threads else None

    def _score(self, graph: ir.Model) -> tuple[float, float]:
        """SNR and agreement, before the Softmax where the network ends in one."""
        answers = self._answers(predicting_runner(before_softmax(graph), self.target, self._threads))
        return snr(self.truth, answers), agreement(self.truth, answers, self.subject.manifest.meaning)

    def _answers(self, runner: Classifier) -> Float:
        return centered(_answers(runner, self.subject.proof), self._soft).astype(np.float32)

    def _time(self, graph: ir.Model) -> tuple[float, bool]:
        """The time against the engine's: by the clock where ONNX Runtime's CPU is the target, else by the cost model."""
        batch = self.recipe.build.profiles[0][1]
        if self.target != Target("cpu"):
            return cost(graph, batch) / cost(self.base, batch), False
        image = np.ascontiguousarray(self.subject.proof[:1])
        plan = Sampling(seconds=SECONDS, warmup=0.2, precision=0.01, yardstick=False)
        found = []
        for _ in range(LAUNCHES):  # where a session's memory lies moves its times by several per cent: the better of each counts
            runs = ("before", graph_runner(self.base, self._threads)), ("after", graph_runner(graph, self._threads))
            measured = measure_latency([Contender(name, 1, partial(run, image)) for name, run in runs], plan)
            found.append([float(np.quantile(one.seconds, 0.1)) for one in measured if not one.failure])
        if any(len(times) < 2 for times in found):
            return cost(graph, batch) / cost(self.base, batch), False
        before, after = (min(times) for times in zip(*found, strict=True))
        return after / before, True


def tried(subject: Subject, trip: Trip, layers: Sequence[LayerLoss], stage: Stage) -> tuple[list[Remedy], list[str]]:
    """Every remedy that was run, the best first, and why some could not be."""
    progress = stage("remedies, each checked by a run")
    bench = Bench(subject, trip)
    changes = list(suggestions(bench.recipe, layers, weighed(subject.manifest.notes)))
    proven: list[tuple[Suggestion, Remedy]] = []
    notes: list[str] = []
    for index, change in enumerate(changes):
        _attempt(bench, change, proven, notes)
        progress(index + 1, len(changes) + 1)
    for change in _together(bench.recipe, proven):
        _attempt(bench, change, proven, notes)
    progress(len(changes) + 1, len(changes) + 1)
    return sorted((remedy for _, remedy in proven), key=lambda remedy: -remedy.value), notes


def _attempt(bench: Bench, change: Suggestion, proven: list[tuple[Suggestion, Remedy]], notes: list[str]) -> None:
    try:
        proven.append((change, bench.prove(change)))
    except ToolkitError as error:
        notes.append(f"{change.what} could not be tried: {error.what}")


def _together(recipe: Recipe, proven: Sequence[tuple[Suggestion, Remedy]]) -> list[Suggestion]:
    """The best that is free, with the best that leaves layers out."""
    best: Callable[[bool], tuple[Suggestion, Remedy] | None] = lambda free: max(  # noqa: E731
        (pair for pair in proven if pair[0].free is free and pair[1].gain >= WORTH), key=lambda pair: pair[1].value, default=None
    )
    free, kept = best(True), best(False)
    if free is None or kept is None:
        return []
    what, why = f"{free[0].what}; {kept[0].what}", f"{free[0].why}; {kept[0].why}"
    return [Suggestion(what, why, joined(recipe, free[0].recipe, kept[0].recipe), False)]


def agreement(truth: Float, answers: Float, meaning: Outputs) -> float:
    """The share of answers that say the same, as columns of this meaning say it, 0 to 1; 0 where one is not finite."""
    return compare_accuracy(truth, answers, None, meaning=meaning).agreement if np.isfinite(answers).all() else 0.0


def _answers(runner: Classifier, images: Float) -> Float:
    return np.concatenate([runner(np.ascontiguousarray(images[i : i + 8])) for i in range(0, len(images), 8)])
