"""tune: the fastest graph inside a recipe's accuracy budget, found in at most 60 evaluations, and never a loser."""

from __future__ import annotations

import msgspec

from toolkit.recipe import Recipe
from toolkit.tuning.choose import SECONDS, choose
from toolkit.tuning.result import TuneResult
from toolkit.tuning.search import Search
from toolkit.tuning.ways import targets_of
from toolkit.tuning.workbench import LIMIT, Workbench
from toolkit.types import Stage, quiet

__all__ = ["TuneResult", "tune"]


def tune(
    recipe: Recipe, stage: Stage = quiet, *, limit: int = LIMIT, seconds: float = SECONDS, targets: str | None = None
) -> TuneResult:
    """Search, measure, choose. Half of the images of `[accept]` guide the search; the verdict comes from the other half.

    `limit` is how many graphs may be evaluated, `seconds` how long each finalist's latency is measured. Where the target
    cannot run on this machine a stated cost model predicts it, and `predicted` says so. `targets`, such as `cpu,openvino`, are
    all tried; absent: for a recipe for the CPU, every library for it that is installed, with one thread and with all cores. The
    winner's recipe names its target. What is found out of a graph is kept: a search that was stopped goes on where it was.
    Raises BudgetError where nothing meets the budget: it says what the best is and what would help.
    """
    outside = msgspec.structs.replace(recipe, preprocess=recipe.preprocess.outside)  # where it is done changes no layer
    bench = Workbench(outside, stage, limit, targets_of(recipe, targets))
    found = Search(bench).run()
    winner, finalists, reasons = choose(bench, found, seconds)
    name = recipe.name if recipe.name.endswith("-tuned") else f"{recipe.name}-tuned"
    notes = tuple(f"tuned: {reason}" for reason in reasons)
    if recipe.preprocess.inside:
        notes = (*notes, "tuned: with preprocessing outside, as the search runs each graph on preprocessed images")
    if bench.resumed:
        found.reasons.append(f"{bench.resumed} of the search's answers were taken from an earlier search of the same")
    best = msgspec.structs.replace(winner.recipe, name=name, notes=notes, preprocess=recipe.preprocess)
    winner = msgspec.structs.replace(winner, recipe=best)
    return TuneResult(
        recipe=recipe,
        winner=winner,
        trials=tuple(found.trials),
        finalists=tuple(finalists),
        sensitivity=tuple(found.sensitivity),
        reasons=(*found.reasons, *reasons),
        evaluations=bench.evaluations,
        predicted=winner.p10_ms is None,
    )
