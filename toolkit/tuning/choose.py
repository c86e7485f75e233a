"""Choose: measure the finalists, hold them to images that the search has not seen, and ship the fastest that passes.

INT8 has to be at least 2 % faster than the better of FP32 and FP16, else that one is the winner: INT8 costs accuracy, so it must
bring something. The verdict rests on held-out images alone; as the finalists come to it fastest first and the first that passes
wins, a chance that a bad one passes is taken at most once a finalist.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import msgspec
import numpy as np

from toolkit.errors import BackendError, BudgetError, DeviceError, MeasurementError, UndecidedError
from toolkit.tuning.cost import STATED
from toolkit.tuning.search import Found
from toolkit.tuning.trial import Sensitivity, Trial
from toolkit.tuning.ways import fastest, live
from toolkit.tuning.workbench import Workbench

FASTER = 0.98
SECONDS = 6.0  # a finalist


def choose(bench: Workbench, found: Found, seconds: float = SECONDS) -> tuple[Trial, list[Trial], list[str]]:
    """The winner, all finalists with what is now known of them, and the reasons. Raises BudgetError, UndecidedError."""
    timed, reasons = measure(bench, found.finalists, seconds)
    floating = [trial for trial in timed if not trial.recipe.precision.quantized]
    bar = min((trial.time for trial in floating if trial.accurate and in_time(bench, trial)), default=float("inf"))
    base = {trial.name: trial.time for trial in timed if trial.accurate and in_time(bench, trial)}
    done: list[Trial] = []
    winner: Trial | None = None
    for trial in sorted(timed, key=lambda trial: trial.time):
        if winner is None and trial.accurate and in_time(bench, trial):
            if trial.recipe.precision.quantized and trial.time > FASTER * bar:
                reasons.append(f"{trial.name} is not chosen: {_against(trial, bar)}, and {FASTER} is the least gain that counts")
            elif trial.over in base and trial.time > FASTER * base[trial.over]:
                share = trial.time / base[trial.over]
                reasons.append(f"{trial.name} gives way to {trial.over}, of whose time it takes {share:.2f}")
            else:
                trial = _judged(bench, trial)
                assert trial.held_out is not None
                reasons.append(f"{trial.name}: {_against(trial, bar)}; on the images held out {trial.held_out.text}")
                winner = trial if trial.accurate else None
        done.append(trial)
    if winner is None:
        raise _unreachable(bench, done, found.sensitivity)
    if not winner.recipe.precision.quantized:
        reasons.append(f"so {winner.name} is shipped, not INT8")
    return winner, done, reasons


def measure(bench: Workbench, trials: Sequence[Trial], seconds: float) -> tuple[list[Trial], list[str]]:
    """The trials in their fastest way with their latencies as engines, and what is to be said of them.

    Where no target can run on this machine the trials come back as they were, and the cost model stands in; the words say so.
    Raises MeasurementError where an engine fails.
    """
    try:
        trials, found, reasons = fastest(bench, trials, seconds)
    except (BackendError, DeviceError) as error:
        return list(trials), [f"{bench.target} cannot run here ({error.what}): time is {STATED}"]
    result = []
    flags: dict[str, str] = {}
    for trial, measured in zip(trials, found, strict=True):
        if measured.failure is not None:
            raise MeasurementError(f"{trial.name} could not be measured: {measured.failure}")
        p10, p50, p99 = (float(q) for q in np.quantile(measured.seconds, [0.1, 0.5, 0.99]) * 1e3)
        result.append(msgspec.structs.replace(trial, p10_ms=p10, p50_ms=p50, p99_ms=p99))
        flags |= {flag.trouble: f"{flag.text}; {flag.remedy}" for flag in measured.flags if flag.trouble != "unsettled"}
    return result, [*reasons, *(f"the latencies are unreliable: {text}" for text in flags.values())]


def _judged(bench: Workbench, trial: Trial) -> Trial:
    """With the verdict on the images held out, of the engine itself where it runs here."""
    if trial.p10_ms is None:
        return bench.judge(trial, held_out=True)
    with ExitStack() as stack:
        return bench.judge(trial, held_out=True, runner=stack.enter_context(live(bench, trial, stack)))


def in_time(bench: Workbench, trial: Trial) -> bool:
    """Whether the trial keeps the recipe's bound on p99; a target that is not here cannot break it."""
    bound = bench.recipe.accept.max_p99_ms
    return bound is None or trial.p99_ms is None or trial.p99_ms <= bound


def _against(trial: Trial, bar: float) -> str:
    if not np.isfinite(bar):
        return "no floating-point engine meets the budget"
    return f"{trial.time / bar:.2f} of the time of the best floating-point engine"


def _unreachable(bench: Workbench, trials: Sequence[Trial], layers: Sequence[Sensitivity]) -> BudgetError:
    """The best that could be had, and what would help; undecided where more images may show that a graph keeps the budget."""
    accept = bench.recipe.accept
    late = [trial for trial in trials if trial.accurate and not in_time(bench, trial)]
    if late:
        best = min(late, key=lambda trial: trial.p99_ms or 0.0)
        reached = f"the best is {best.name} with {best.p99_ms:.2f} ms"
        what = f"no graph keeps max_p99_ms = {accept.max_p99_ms:g} within the accuracy budget: {reached}"
        return BudgetError(what, remedy="Raise max_p99_ms, lower the batch in [build], or choose a smaller reference")
    open_ = [trial for trial in trials if (verdict := trial.held_out or trial.searched) is not None and verdict.undecided]
    best = max(open_ or trials, key=lambda trial: (trial.recipe.precision.int8, trial.snr))
    verdict = best.held_out or best.searched
    said = verdict.text if verdict is not None else f"{best.snr:.1f} dB"
    budget = f"max_top1_drop {accept.max_top1_drop:g}, min_agreement {accept.min_agreement:g}"
    images = bench.search.count + bench.held_out.count
    worst = sorted(layers, key=lambda layer: layer.alone)[:3]
    if worst:
        said += "; most is lost in " + ", ".join(f"{layer.unit} ({layer.alone:.1f} dB alone)" for layer in worst)
    help_ = f"Give [accept] more than {images} images, widen the budget, or fine-tune: toolkit finetune RECIPE -o DIR"
    kind = UndecidedError if open_ else BudgetError
    return kind(f"the budget ({budget}) cannot be shown to be met; the best INT8 graph: {said}", remedy=help_)
