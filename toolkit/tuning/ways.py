"""Ways: on which library and how many threads a finalist runs. On a CPU they are all tried, and the fastest stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import msgspec
import numpy as np

from toolkit import pipeline
from toolkit.cpu import cores
from toolkit.disk.drafts import scratch
from toolkit.engine import engine
from toolkit.errors import BackendError, DeviceError, EngineError, GraphError, MissingExtra, RecipeError, ToolkitError
from toolkit.graph.qdq import scheme_of
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.measurement import Measurement
from toolkit.recipe import Recipe
from toolkit.runtime.device import best
from toolkit.runtime.runner import Runner
from toolkit.tuning.trial import Trial
from toolkit.tuning.workbench import Workbench
from toolkit.types import ON_CPU, Target

FIRST = 0.25  # of the seconds of a finalist, to find its fastest way
REFUSALS = (BackendError, DeviceError, EngineError, GraphError)  # of one graph: the others may do
GAIN = 1.02  # another library and more threads have to bring at least so much


class Way(NamedTuple):
    """A target, and the threads it computes with (None: what the recipe says, or its backend chooses)."""

    target: Target
    threads: int | None

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe for this way; what belongs to another target's library goes."""
        spin = recipe.build.spin if self.target.kind == "cpu" else None
        build = msgspec.structs.replace(recipe.build, target=str(self.target), threads=self.threads, spin=spin)
        return msgspec.structs.replace(recipe, build=build)

    def __str__(self) -> str:
        return str(self.target) if self.threads is None else f"{self.target}, {self.threads} thread{'s' * (self.threads > 1)}"


def targets_of(recipe: Recipe, wanted: str | None) -> tuple[Target, ...]:
    """What to tune for: `wanted`, else the recipe's own target; for one on the CPU, each library for the CPU that is installed.

    Raises RecipeError where two targets take different Q/DQ schemes: one graph cannot be best for both.
    """
    own = Target.parse_many(wanted or recipe.build.target)
    if wanted is None and own[0].kind in ON_CPU:
        installed = [Target("cpu"), *([Target("openvino")] if find_spec("openvino") is not None else [])]
        own = tuple(dict.fromkeys((own[0], *installed)))
    if len({scheme_of(target) for target in own}) > 1:
        what = f"{', '.join(map(str, own))} want Q/DQ pairs in different places, so no one graph can be tuned for them"
        raise RecipeError(what, remedy="Tune for each: --targets cpu,openvino, then --targets rtx:sm89")
    return own


def gpu_of(target: Target) -> int | None:
    """The SM of this machine's GPU, where engines for `target` run on it; None on all other machines."""
    if not target.is_nvidia:
        return None
    try:
        with closing(best()) as device:
            sm = device.sm
    except (MissingExtra, DeviceError):
        return None
    least = target.sm
    fits = least is None or sm in (least, *target.also) or (target.onward and sm >= least)
    return sm if fits else None


def ways_of(recipe: Recipe, targets: Sequence[Target]) -> list[Way]:
    """Every target, on a CPU with one thread and with all cores unless the recipe says how many."""
    given = recipe.build.threads
    found = []
    for target in targets:
        each = (given,) if given or target.kind not in ON_CPU else (1, cores())
        found += [Way(target, threads) for threads in dict.fromkeys(each)]
    return found


def fastest(bench: Workbench, trials: Sequence[Trial], seconds: float) -> tuple[list[Trial], list[Measurement], list[str]]:
    """Each trial in its fastest way, with its latency as an engine, and what is to be said of the others: a graph that the
    library or the GPU refuses is out, and named.

    Raises BackendError or DeviceError where no way runs on this machine.
    """
    ways = ways_of(bench.recipe, bench.targets)
    reasons: list[str] = []
    if len(ways) > 1:
        trials, reasons = _first_round(bench, trials, ways, max(0.5, FIRST * seconds))
    else:
        trials = [_in(trial, ways[0]) for trial in trials]
    measured = _measured(bench, trials, seconds, reasons)
    both = [(trial, found) for trial, found in zip(trials, measured, strict=True) if found is not None]
    return [trial for trial, _ in both], [found for _, found in both], reasons


def live(bench: Workbench, trial: Trial, stack: ExitStack) -> Runner:
    """The trial as a live engine for its recipe's target, in a folder that goes with `stack`."""
    folder = stack.enter_context(scratch()) / "engine"
    target, trip = Target.parse_many(trial.recipe.build.target)[0], bench.trip(trial.recipe)
    if target.kind == "tensorrt":  # what one candidate's build measured of a layer holds for all others, and after a stop
        timing = msgspec.structs.replace(trip.recipe.build, timing_cache=True)
        trip = trip._replace(recipe=msgspec.structs.replace(trip.recipe, build=timing))
    pipeline.build(trip._replace(truth=None), target, folder)  # no truth, no proof: `judge` has that
    return engine.load(folder)


def _in(trial: Trial, way: Way) -> Trial:
    return msgspec.structs.replace(trial, recipe=way.of(trial.recipe))


def _first_round(
    bench: Workbench, trials: Sequence[Trial], ways: Sequence[Way], seconds: float
) -> tuple[list[Trial], list[str]]:
    """Every trial in every way, briefly: the fastest of each, and a line that holds the ways against one another."""
    reasons = list[str]()
    broken: set[Way] = set()
    for way in ways:  # a library that cannot take the recipe's graphs is out, and said to be
        try:
            with ExitStack() as stack:
                stack.enter_context(live(bench, _in(trials[0], way), stack))
        except (BackendError, DeviceError, EngineError) as error:
            if way.target not in {other.target for other in broken}:
                reasons.append(f"{way.target} is excluded: {error.what}")
            broken.add(way)
    if len(broken) == len(ways):
        raise BackendError(reasons[0])
    every = [(trial, way) for trial in trials for way in ways if way not in broken]
    found = _measured(bench, [_in(trial, way) for trial, way in every], seconds, reasons)
    times = {(trial.name, way): _p10(one) for (trial, way), one in zip(every, found, strict=True)}
    chosen = []
    for trial in trials:
        mine = {way: times[trial.name, way] for way in ways if way not in broken}
        best = next(way for way, time in mine.items() if time <= GAIN * min(mine.values()))
        chosen.append(_in(trial, best))
        said = ", ".join(f"{way} {time:.3g} ms" for way, time in sorted(mine.items(), key=lambda pair: pair[1]))
        reasons.append(f"{trial.name} on {best} (p10 at batch {bench.batch}: {said}; less than 2 % decides nothing)")
    return chosen, reasons


def _measured(bench: Workbench, trials: Sequence[Trial], seconds: float, reasons: list[str]) -> list[Measurement | None]:
    """Engines take turns, at the batch that the recipe optimizes for. None for one that is refused, which `reasons` names.

    Raises BackendError or DeviceError where every one is.
    """
    pictures = bench.few(bench.batch)
    progress = bench.stage(f"latency of {len(trials)} engines at batch {bench.batch}")
    entries: dict[int, Contender] = {}
    refusals = list[ToolkitError]()
    with ExitStack() as stack:
        for index, trial in enumerate(trials):
            try:
                run = stack.enter_context(live(bench, trial, stack))
            except REFUSALS as error:
                refusals.append(error)
                reasons.append(f"{trial.name} is out: {error.what}")
            else:
                entries[index] = Contender(f"{index} {trial.name}", bench.batch, partial(run, pictures))
        if not entries:
            first = refusals[0]
            del reasons[-len(refusals) :]
            raise first if isinstance(first, (BackendError, DeviceError)) else BackendError(first.what, remedy=first.remedy)
        sampling = Sampling(seconds=seconds * len(entries), warmup=2.0, precision=0.01)
        found = dict(zip(entries, measure_latency(list(entries.values()), sampling, progress=progress), strict=True))
    return [found.get(index) for index in range(len(trials))]


def _p10(measured: Measurement | None) -> float:
    """In ms; endless where it failed or was refused."""
    if measured is None or measured.failure is not None:
        return float("inf")
    return float(np.quantile(measured.seconds, 0.1)) * 1e3
