"""Orders: several engines to build. All that can be known beforehand is checked for all of them before the first is built, and
what fails ends its own order only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from toolkit import pipeline
from toolkit.backends import backend
from toolkit.disk.drafts import draft_folder
from toolkit.disk.folders import settled
from toolkit.engine.engine import Engine
from toolkit.engine.place import other_model, refuse_other
from toolkit.errors import (
    BudgetError,
    DataError,
    EngineError,
    MissingExtra,
    RecipeError,
    ToolkitError,
    UndecidedError,
    WeightsError,
    extras,
)
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import class_names
from toolkit.manifest import Manifest
from toolkit.pipeline import Numerics, Trip, calibration_images
from toolkit.recipe import Recipe
from toolkit.recipe.flags import is_made_up
from toolkit.recipe.modules import held
from toolkit.refit import can_refit, taken_over
from toolkit.types import Stage, Target, quiet


class Order(NamedTuple):
    """One engine that is wanted, and where it is to lie."""

    recipe: Recipe
    target: Target
    folder: Path


class Outcome(NamedTuple):
    """What became of an order: the manifest of its engine, or why there is none."""

    order: Order
    manifest: Manifest | None = None
    error: ToolkitError | None = None


def orders_of(recipes: Sequence[Recipe], targets: str | None, out: Path) -> tuple[Order, ...]:
    """An order for each recipe and each of `targets` (absent: the recipe's own).

    An engine for the recipe's own target is called after the recipe; one for another target adds that: `NAME-rtx-sm89`. Raises
    RecipeError for an unknown target, and where two engines would take one folder.
    """
    orders: dict[Path, Order] = {}
    for recipe in recipes:
        for target in dict.fromkeys(Target.parse_many(targets or recipe.build.target)):
            own = (target,) == Target.parse_many(recipe.build.target)
            folder = out / (recipe.name if own else f"{recipe.name}-{str(target).replace(':', '-')}")
            if folder in orders:
                raise RecipeError(f"two engines would take the folder {folder}", remedy="Give each recipe a `name` of its own")
            orders[folder] = Order(recipe, target, folder)
    return tuple(orders.values())


def foresee(order: Order, refit: Engine | None = None) -> ToolkitError | None:
    """What is known to go wrong with an order before any work: a file, images, a library, an option, an SM that is not there."""
    recipe = order.recipe
    try:
        _require_files(recipe)
        class_names(recipe)
        if recipe.calibration_data is not None:
            calibration_images(recipe)
        pipeline.proof_images(recipe)
        refuse_other(settled(order.folder))
        _refuse_other_model(order)
        build = recipe.build
        if refit is not None:
            taken_over(refit, recipe, order.target)
            build = msgspec.structs.replace(build, refit=can_refit(order.target))
        backend(order.target).check(build, order.target)
    except ToolkitError as error:
        return error
    return None


def fill(
    orders: Sequence[Order],
    stage: Stage = quiet,
    *,
    proof: bool = True,
    sign_key: Path | None = None,
    refit: Engine | None = None,
) -> Iterator[Outcome]:
    """Build what is ordered. Outcomes of orders that cannot succeed come first, before any work, the others as they are done.

    With an engine to `refit`, one order takes it for its start (`refit.py`); of several, RecipeError.
    """
    if refit is not None and len(orders) > 1:
        what = f"{len(orders)} engines are wanted, and {refit.name} can be refitted to one"
        raise RecipeError(what, remedy="Build them one after another, each with its own --refit")
    if sign_key is not None:
        from toolkit.engine.signing import check_key

        check_key(sign_key)
    unread = _unread([order.recipe for order in orders])
    seen = ((order, foresee(order, refit) or unread.get(id(order.recipe))) for order in orders)
    bad = {order.folder: error for order, error in seen if error is not None}
    yield from (Outcome(order, error=bad[order.folder]) for order in orders if order.folder in bad)
    good = [order for order in orders if order.folder not in bad]
    for folder in {order.folder.parent for order in good}:
        _make(folder)  # before the work, should it not be possible
    trip: Trip | None = None
    for _, group in groupby(good, key=lambda order: id(order.recipe)):
        same, proofs = list(group), dict[Numerics, Verdict | None]()
        try:
            recipe = same[0].recipe if refit is None else taken_over(refit, same[0].recipe, same[0].target)
            trip = pipeline.prepare(recipe, stage, proof=proof, like=trip)
        except ToolkitError as error:
            yield from (Outcome(order, error=error) for order in same)
            continue
        for order in same:
            try:
                yield Outcome(order, pipeline.build(trip, order.target, order.folder, stage, proofs, sign_key, refit))
            except ToolkitError as error:
                yield Outcome(order, error=error)


def _make(folder: Path) -> None:
    """The folder that engines go into. Raises EngineError where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with draft_folder(folder / "engine"):
            pass
    except OSError as error:
        what = f"the folder {folder} cannot be made or written: {error.strerror}"
        raise EngineError(what, remedy="Choose another with -o") from error


def build_all(
    recipes: Sequence[Recipe],
    targets: str | None,
    out: Path,
    stage: Stage = quiet,
    *,
    proof: bool = True,
    refit: Engine | None = None,
) -> list[tuple[Path, Manifest]]:
    """Each engine's folder and manifest, in order; raises `failure` where one was not built, after the others."""
    outcomes = list(fill(orders_of(recipes, targets, out), stage, proof=proof, refit=refit))
    if (error := failure(outcomes)) is not None:
        raise error
    return [(order.folder, manifest) for order, manifest, _ in outcomes if manifest is not None]


def failure(outcomes: Sequence[Outcome]) -> ToolkitError | None:
    """One error for all that failed: its own where one engine was ordered; a BudgetError where none failed otherwise."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed or len(outcomes) == 1:
        return failed[0].error if failed else None
    names: dict[str, list[str]] = {}  # by what is said of them: a fault of the reference is one of all engines that it has
    for order, _, error in failed:
        names.setdefault(str(error), []).append(order.folder.name)
    said = "; ".join(f"{', '.join(engines)}: {error}" for error, engines in names.items())
    softer: list[type[ToolkitError]] = [UndecidedError, BudgetError]  # only where all others are no worse
    kind = next((kind for kind in softer if all(isinstance(outcome.error, kind) for outcome in failed)), ToolkitError)
    return kind(f"{len(failed)} of {len(outcomes)} engines were not built. {said}")


def is_missing(outcome: Outcome) -> bool:
    """Whether it failed for want of a Python package."""
    return isinstance(outcome.error, MissingExtra)


def _refuse_other_model(order: Order) -> None:
    """A name that was made up after a file may be that of two: the second model's engine does not take the first one's place."""
    recipe, folder = order.recipe, settled(order.folder)
    if not is_made_up(recipe.to_dict()):
        return
    was = other_model(folder, recipe, lambda: _weights(recipe))
    if was is not None and Path(was).is_absolute():
        remedy = "Give this one a name, as by --set name=NAME, or another folder, as by -o"
        raise EngineError(f"{folder} is the engine of another model, {was}: it is not replaced", remedy=remedy)


def _weights(recipe: Recipe) -> str:
    """The hash of the reference, as the manifest keeps it."""
    if recipe.reference.onnx is not None:
        from toolkit.graph.load.read import digest_of

        return digest_of(Path(recipe.reference.onnx))
    from toolkit.reference.weights import digest, load_reference

    return digest(load_reference(recipe.reference))


def _unread(recipes: Sequence[Recipe]) -> dict[int, ToolkitError]:
    """Recipes, by `id`, whose reference is no model that can be opened. Of a single reference the build finds that out at once; a
    second one would be found out after the engines of the first."""
    known = {_key(recipe): recipe for recipe in recipes}
    found = {key: error for key, recipe in known.items() if len(known) > 1 and (error := _open(recipe)) is not None}
    return {id(recipe): found[_key(recipe)] for recipe in recipes if _key(recipe) in found}


def _key(recipe: Recipe) -> bytes:
    return msgspec.json.encode((recipe.reference, recipe.preprocess.channels))


def _open(recipe: Recipe) -> ToolkitError | None:
    """What keeps the file of a reference from being read; None for one that lies elsewhere, and one that is not looked for."""
    reference = recipe.reference
    file = reference.onnx or reference.weights or ""
    try:
        if not Path(file).is_absolute() or not Path(file).exists():
            return None
        with extras():
            if reference.onnx is not None:
                from toolkit.graph.load.glance import glance

                glance(Path(file))
            else:
                from toolkit.reference.weights import load_reference

                load_reference(reference, channels=recipe.preprocess.channels)
    except ToolkitError as error:
        return error
    return None


def _require_files(recipe: Recipe) -> None:
    reference = recipe.reference
    if reference.in_memory:
        held(reference.weights or "")
    elif reference.weights is not None and Path(reference.weights).is_absolute() and not Path(reference.weights).exists():
        raise WeightsError(f"there is no file {reference.weights}", remedy="Check `reference.weights` in the recipe")
    elif reference.onnx is not None and not Path(reference.onnx).exists():
        raise DataError(f"there is no file {reference.onnx}", remedy="Check `reference.onnx` in the recipe")
    ranges = recipe.calibration.ranges
    if ranges is not None and not Path(ranges).exists():
        raise DataError(f"there is no file {ranges}", remedy="Check `calibration.ranges` in the recipe")
