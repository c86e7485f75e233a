"""One bench from live runners to Results: accuracy first, then the scenario; what fails is named and the rest goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from toolkit.errors import MeasurementError, ToolkitError
from toolkit.harness import energy
from toolkit.harness.accuracy import LabeledImages, answers_of, compare_accuracy, fitting
from toolkit.harness.answers import Answers
from toolkit.harness.conditions import Monitor
from toolkit.harness.environment import read_environment
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.measurement import Measurement, Scenario
from toolkit.harness.results import Results
from toolkit.harness.scenarios import Load, run_offline, run_server
from toolkit.harness.verdict import Verdict
from toolkit.harness.yardstick import Handoff, Yardstick
from toolkit.recipe import Accept
from toolkit.recipe.recipe import MOST_BATCH
from toolkit.runtime.runner import Runner
from toolkit.types import ON_CPU, Array, Float, Stage, noise, quiet

BATCHES: dict[Scenario, tuple[int, ...]] = {"single-stream": (1, 8), "offline": (1, 8, 32), "server": (1, 4, 16)}
QUICK = Sampling(seconds=20, warmup=3)  # as many rounds as any: with fewer launches there is no interval of a ratio


def plan_of(quick: bool = False, seconds: float | None = None, warmup: float | None = None) -> Sampling:
    """The plan that a user asked for. Raises MeasurementError on no time at all."""
    plan = QUICK if quick else Sampling()
    given = {name: value for name, value in (("seconds", seconds), ("warmup", warmup)) if value is not None}
    for name, value in given.items():
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise MeasurementError(f"--{name} {value!r:.80} is not a time to measure for", remedy="Give more than 0 seconds")
    return msgspec.structs.replace(plan, **given)


def check_wanted(scenario: str, batches: Sequence[int], bound: float | None) -> None:
    """Raise MeasurementError for a scenario that is none, batches that no engine takes, a bound that bounds nothing."""
    if scenario not in BATCHES:
        raise MeasurementError(f"the scenario '{scenario}' is not known", remedy=f"There are {', '.join(BATCHES)}")
    sizes = batches if isinstance(batches, (list, tuple)) else [batches]
    wrong = [size for size in sizes if not isinstance(size, int) or not 1 <= size <= MOST_BATCH]
    if wrong or sizes is not batches:
        what = f"{wrong[0] if wrong else batches!r:.80} is not a batch to measure"
        raise MeasurementError(what, remedy="Give a list of sizes, such as batches=[1, 8]")
    if bound is not None and not (isinstance(bound, (int, float)) and 0 < bound < math.inf):
        raise MeasurementError(f"{bound!r:.80} is no limit for p99", remedy="Give more than 0 seconds")


def run_bench(
    runners: Mapping[str, Runner],
    scenario: Scenario = "single-stream",
    *,
    batches: Sequence[int] = (),
    plan: Sampling = Sampling(),  # noqa: B008  frozen
    images: LabeledImages | None = None,
    pictures: Sequence[Any] | None = None,
    reference: str | None = None,
    truth: Float | None = None,
    accept: Accept = Accept(),  # noqa: B008  frozen
    bound: float | None = None,
    loadgen: bool = True,
    handoff: Handoff | None = None,
    save: Callable[[Results], None] | None = None,
    stage: Stage = quiet,
) -> Results:
    """Bench `runners` by name; `reference` names the one that the others' answers are compared with.
    `truth` are its logits on `images` where it is not among the runners. `images` adds accuracy and verdicts; `pictures` adds
    the end-to-end clock at the smallest batch. `bound` (seconds; absent: the recipe's max_p99_ms) is for the server scenario.
    `handoff` adds the hand-offs between cores to the yardstick. `save` gets the results so far. What fails is in `failures`.
    """
    gpu = any(runner.manifest.target not in ON_CPU for runner in runners.values())
    manifests = {name: msgspec.json.decode(msgspec.json.encode(runner.manifest)) for name, runner in runners.items()}
    yardstick = Yardstick(handoff) if plan.yardstick and scenario == "single-stream" else None
    results = Results(environment=read_environment(gpu), manifests=manifests, yardstick=yardstick.card if yardstick else None)
    results = _with_accuracy(results, runners, images, reference, truth, accept, stage)
    monitor, batches, counter = Monitor(gpu), batches or BATCHES[scenario], energy.meter(gpu)[0]
    keep = _keeper(results, monitor, save)
    if scenario == "single-stream":
        entries, progress = entries_of(runners, batches, images, pictures), stage(f"latency of {len(runners)} engines in rounds")
        tools = {"monitor": monitor, "yardstick": yardstick, "meter": counter}
        return keep(measure_latency(entries, plan, **tools, checkpoint=keep, progress=progress))  # type: ignore[arg-type]
    limit, measure = bound or (accept.max_p99_ms or 15.0) / 1000, run_offline if scenario == "offline" else run_server
    measured: list[Measurement] = []
    for name, runner in runners.items():
        load = Load(name, runner, _inputs(runner, max(64, *batches), images), batches, plan, limit, loadgen, counter, monitor)
        measured += measure(load, stage(f"{scenario}: {name}"))
        keep(measured)
    return keep(measured)


def _keeper(
    results: Results, monitor: Monitor, save: Callable[[Results], None] | None
) -> Callable[[Sequence[Measurement]], Results]:
    """A function that gives `results` with the measurements so far, and saves them on the way."""

    def keep(measurements: Sequence[Measurement]) -> Results:
        failed = {m.engine: m.failure for m in measurements if m.failure} | results.failures
        moments, measured = tuple(monitor.moments), tuple(measurements)
        done = msgspec.structs.replace(results, measurements=measured, moments=moments, failures=failed)
        if save:
            save(done)
        return done

    return keep


def entries_of(
    runners: Mapping[str, Runner],
    batches: Sequence[int],
    images: LabeledImages | None = None,
    pictures: Sequence[Any] | None = None,
) -> list[Contender]:
    """Every runner at every batch, arrays in and out; on the device alone where the backend has a clock there; with
    `pictures` also end to end, preprocessing included, at the smallest batch."""
    entries = []
    for batch in batches:
        for name, runner in runners.items():
            manifest = runner.manifest
            array = _inputs(runner, batch, images)
            entry = Contender(name, batch, _bind(runner, array), manifest.precision, manifest.target)
            threads = int(manifest.settings.get("threads", 1))
            entry = entry._replace(threads=threads, reopen=runner.reopen if runner.can_reopen else None)
            entries.append(entry)
            if hasattr(runner.executor, "time_on_device") and batch <= (runner.executor.max_batch or batch):  # type: ignore[union-attr]
                entries.append(entry._replace(clock="device", device_ns=_nanoseconds(runner, batch)))
            if pictures and batch == min(batches):
                some = [pictures[i % len(pictures)] for i in range(batch)]
                call = _bind(runner.classify, some)
                entries.append(entry._replace(call=call, clock="end-to-end", logits=False))
    return entries


def _nanoseconds(runner: Runner, batch: int) -> Callable[[int], list[int]]:
    return lambda runs: [round(seconds * 1e9) for seconds in runner.executor.time_on_device(batch, runs)]  # type: ignore[union-attr]


def _bind(call: Callable[[Any], Any], value: Any) -> Callable[[], Any]:
    return lambda: call(value)


def _inputs(runner: Runner, batch: int, images: LabeledImages | None) -> Array:
    """`batch` real images over and over, or noise where there are none: [batch, ...] as the runner takes it."""
    spec = runner.manifest.inputs[0]
    if images is None:
        return noise(spec, batch)
    first: Array = next(fitting(images, runner).batches(min(batch, images.count)))
    array = np.concatenate([first] * -(-batch // len(first)))[:batch]
    return np.ascontiguousarray(array, dtype=spec.dtype)


def _with_accuracy(
    results: Results,
    runners: Mapping[str, Runner],
    images: LabeledImages | None,
    reference: str | None,
    truth: Float | None,
    accept: Accept,
    stage: Stage,
) -> Results:
    """Every runner's answers, and a verdict on each but the reference; what cannot be had is a failure with its reason."""
    if images is None:
        return results
    logits: dict[str, Float] = {} if truth is None or reference is None else {reference: truth}
    failures: dict[str, str] = {}
    verdicts: list[Verdict] = []
    for name in sorted(runners, key=lambda name: name != reference):
        try:
            logits[name] = answers_of(runners[name], images, name=name, progress=stage(f"answers of {name}"))
            if reference in logits and name != reference:
                verdicts.append(
                    compare_accuracy(
                        logits[reference],
                        logits[name],
                        images.labels,
                        accept,
                        classes=images.classes,
                        name=name,
                        against=reference,
                        meaning=runners[name].manifest.meaning,
                    )
                )
        except ToolkitError as error:
            failures[name] = str(error)
    meaning = next(iter(runners.values())).manifest.meaning  # all come of one reference
    answers = tuple(Answers.of(name, images.sha256, values, images.labels, meaning) for name, values in logits.items())
    return msgspec.structs.replace(results, answers=answers, verdicts=tuple(verdicts), failures=failures)
