"""Running: both sides live, in turns by the clock, and on every image that they are judged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from toolkit.diff.result import Latency
from toolkit.diff.sides import Side, answers
from toolkit.engine.identity import specs
from toolkit.errors import MeasurementError, ToolkitError
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.statistics import by_block, shift
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import Images
from toolkit.outputs import Outputs
from toolkit.recipe import Accept
from toolkit.runtime.runner import Runner
from toolkit.types import Classifier, Stage, noise

LEAST = 6  # launches, or blocks, that an interval takes


def run(
    a: Side, b: Side, images: Images | None, seconds: float, notes: list[str], stage: Stage
) -> tuple[Latency | None, Verdict | None]:
    """Latency where both run as what they are, and the verdict where there are images. `notes` is told what is left out."""
    with ExitStack() as stack:
        runners: list[Classifier] = []
        said = []
        for side in (a, b):
            try:
                runner, note = stack.enter_context(answers(side))
            except ToolkitError as error:
                notes.append(f"{side.name} does not run here: {error.what}")
                return None, None
            runners.append(runner)
            said += [note] if note else []
        notes += said
        verdict = _verdict(a, b, runners, images, notes, stage) if images is not None else None
        if said:
            notes.append("latency is not compared: not both can run here on their own target")
            return None, verdict
        return (_latency(a, b, runners, seconds, notes, stage) if seconds > 0 else None), verdict


def _verdict(
    a: Side, b: Side, runners: Sequence[Classifier], images: Images, notes: list[str], stage: Stage
) -> Verdict | None:
    """B compared with A, as `[accept]` of B says, else of A."""
    recipe, model = b.recipe or a.recipe, b.model or a.model
    accept = recipe.accept if recipe is not None else Accept()
    meaning, classes = (model.meaning, model.classes or images.classes) if model is not None else (Outputs(), images.classes)
    try:
        one, two = (
            answers_of(runner, _for(side, images), name=side.name, progress=stage(f"answers of {side.name}"))
            for side, runner in zip((a, b), runners, strict=True)
        )
        return compare_accuracy(one, two, images.labels, accept, classes=classes, name=b.name, against=a.name, meaning=meaning)
    except MeasurementError as error:
        notes.append(f"no verdict: {error.what}")
        return None


def _for(side: Side, images: Images) -> Images:
    """The images as the side takes them: a recipe's graph has no manifest that says it."""
    return images if side.recipe is None else images.having(side.recipe.preprocess.inside)


def _latency(
    a: Side, b: Side, runners: Sequence[Classifier], seconds: float, notes: list[str], stage: Stage
) -> Latency | None:
    takes = [specs(side.graph.graph.inputs)[0] for side in (a, b)]
    batch = max(first if isinstance(first, int) else 1 for first, *_ in (spec.shape for spec in takes))
    calls = [partial(runner, noise(spec, batch)) for runner, spec in zip(runners, takes, strict=True)]
    entries = [_entry(name, batch, call, runner) for name, call, runner in zip("AB", calls, runners, strict=True)]
    progress = stage("latency of both, alternately")
    one, two = measure_latency(entries, Sampling(seconds=seconds, warmup=0.5, yardstick=False), progress=progress)
    if one.failure or two.failure:
        notes.append(f"latency is not compared: {one.failure or two.failure}")
        return None
    p50 = (float(np.median(one.seconds)) * 1e3, float(np.median(two.seconds)) * 1e3)
    launches = min(len(set(found.clusters.tolist())) for found in (one, two)) >= LEAST
    each = [np.log(by_block(found.seconds, found.clusters if launches else found.groups)) for found in (one, two)]
    moved = shift(*each) if min(map(len, each)) >= LEAST else None
    interval = None if moved is None else (float(np.exp(moved.low)), float(np.exp(moved.high)))
    return Latency(batch=batch, p50=p50, ratio=p50[1] / p50[0], interval=interval)


def _entry(name: str, batch: int, call: Callable[[], object], runner: Classifier) -> Contender:
    """An engine is reopened every so often: where its threads and memory lie moves its times by several per cent."""
    again = runner.reopen if isinstance(runner, Runner) and runner.can_reopen else None
    return Contender(name, batch, call, logits=False, reopen=again)
