"""Settle: calibration images -> what INT8 is scaled by. Collects ranges, and has chosen what a recipe leaves to measurement."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit import calibration
from toolkit.calibration import Ranges, origin_of
from toolkit.disk.files import sha256_bytes
from toolkit.errors import CalibrationError, RecipeError
from toolkit.graph.channels import IMAGES
from toolkit.graph.equalize import Mode
from toolkit.graph.prescale import equalized
from toolkit.graph.qdq import Scheme
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.select import LEAST, Settings, select
from toolkit.graph.weights import Room
from toolkit.images.dataset import Images, open_data
from toolkit.recipe import Recipe
from toolkit.trip import calibration_images
from toolkit.types import Progress

SEED = 0
CHOOSING, JUDGING = 32, 96  # images held back, at most


class Held(NamedTuple):
    """The calibration images: ranges are drawn from some, settings chosen on others, builds judged on others again.

    No `ranging` only where the recipe brings its ranges and names no images.
    """

    ranging: Images | None
    choosing: Images | None
    judging: Images | None


class Settled(NamedTuple):
    """The recipe with nothing left open, the FP32 graph as equalised, its ranges, and why."""

    recipe: Recipe
    graph: ir.Model
    ranges: Ranges
    reasons: tuple[str, ...]


def hold_back(recipe: Recipe) -> Held:
    """Part the calibration images. Raises RecipeError, DataError.

    What the data holds beyond `calibration.images` is held back first; where that is too little, an eighth for the choice and as
    much again for the judgement, drawn at random (seed 0). A choice needs settings that are open; a judgement, no `[accept]`.
    """
    wanted = recipe.calibration.images
    data = recipe.calibration_data
    if data is None:
        return Held(None if recipe.calibration.ranges is not None else calibration_images(recipe), None, None)
    everything = open_data(data, recipe.preprocess.outside)
    total = everything.count
    ranging = open_data(data, recipe.preprocess.outside, wanted)
    choosing = CHOOSING if recipe.precision.quantized and is_open(recipe) else 0
    judging = JUDGING if recipe.accept.data is None else 0
    random = np.random.default_rng(SEED)
    if total - ranging.count >= choosing + judging:
        order = ranging.count + random.permutation(total - ranging.count)
    else:
        ranging, order = everything, random.permutation(total)
        choosing, judging = (min(n, max(total // 8, min(LEAST, total // 4))) for n in (choosing, judging))
    chosen, judged = sorted(order[:choosing].tolist()), sorted(order[choosing : choosing + judging].tolist())
    if ranging is everything:
        held = {*chosen, *judged}
        rest = [index for index in range(total) if index not in held][:wanted]
        ranging = everything.take(rest) if held else everything
    return Held(ranging, everything.take(chosen) if chosen else None, everything.take(judged) if judged else None)


def is_open(recipe: Recipe) -> bool:
    """Whether the recipe leaves a setting of INT8 to measurement."""
    return bool(Settings(recipe.precision, recipe.calibration).open)


def settle(
    recipe: Recipe, graph: ir.Model, held: Held, scheme: Scheme, room: Room, stage: Callable[[str], Progress]
) -> Settled:
    """Equalise and calibrate, as the recipe says, or as `select` finds best. Raises CalibrationError, GraphError."""
    settings = Settings(recipe.precision, recipe.calibration)
    if recipe.calibration.ranges is not None:
        return _given(recipe, graph, held)
    ranging = held.ranging
    assert ranging is not None
    if settings.open and held.choosing is not None and held.choosing.count >= LEAST:
        stage("choose the settings of INT8")
        few = [batch.copy() for batch in islice(ranging.batches(1), IMAGES)]
        share = ranging.take(range(min(IMAGES, ranging.count)))
        found = select(
            graph,
            settings,
            few,
            np.concatenate(list(held.choosing.batches(8))),
            lambda one, whole: calibrate(recipe, one, ranging if whole else share, stage),
            scheme=scheme,
            room=room,
        )
        return Settled(_with(recipe, found.settings), found.graph, found.ranges, found.reasons)
    reasons = tuple[str, ...]()
    if settings.open:
        plain = settings.simply()
        said = f"{plain.calibration.method}, equalize = {plain.precision.equalize}, weights = {plain.precision.weights}"
        reasons = (f"auto: too few calibration images to choose by, so the simple settings stand: {said}",)
        settings = plain
    graph = equalized(graph, settings.precision.equalize, ranging.batches(8))
    return Settled(_with(recipe, settings), graph, calibrate(recipe, graph, ranging, stage), reasons)


def _given(recipe: Recipe, graph: ir.Model, held: Held) -> Settled:
    """With the ranges of the recipe's own file: where equalisation is open, it is the one that they are of.

    Scales of equalisation come from images: without any, only ranges of a graph that is not equalised can be taken.
    """
    assert recipe.calibration.ranges is not None
    ranges, settings = Ranges.read(recipe.calibration.ranges), Settings(recipe.precision, recipe.calibration)
    kinds: tuple[Mode, ...] = (recipe.precision.equalize,)
    if "equalize" in settings.open:
        kinds = ("streams", "pairs", "none", "activations") if held.ranging is not None else ("none",)
    elif held.ranging is None and kinds != ("none",):
        what = f'`equalize = "{kinds[0]}"` is measured on images, and {recipe.name} names none'
        raise RecipeError(what, remedy="Set `calibration.data` to the images that the ranges are of")
    settings, fault = settings.simply(), None
    for kind in kinds:
        candidate = equalized(graph, kind, held.ranging.batches(8) if held.ranging is not None else ())
        try:
            ranges.check(candidate, watched(candidate))
        except CalibrationError as error:
            fault = fault or error
        else:
            return Settled(_with(recipe, settings.having(equalize=kind)), candidate, not_blank(ranges, candidate), ())
    assert fault is not None
    if held.ranging is None:
        remedy = "They may be of an equalised graph: set `calibration.data` to the images that they are of"
        raise CalibrationError(fault.what, remedy=remedy)
    raise fault


def _with(recipe: Recipe, settings: Settings) -> Recipe:
    return msgspec.structs.replace(recipe, precision=settings.precision, calibration=settings.calibration)


def calibrate(recipe: Recipe, graph: ir.Model, images: Images, stage: Callable[[str], Progress]) -> Ranges:
    """One pass over the images, unless the same was done before: the ranges that every target draws on."""
    tensors = watched(graph)
    origin = origin_of(graph, tensors, images.sha256, sha256_bytes(recipe.preprocess.card()))
    kept = calibration.find_ranges(origin, images.count)
    count = f"{images.count} images" if images.count > 1 else "1 image"
    progress = stage(f"calibrate on {count}{', done before' if kept else ''}")
    ranges = kept or calibration.collect_cached(
        graph, images.batches(1), tensors, origin=origin, count=images.count, name_of=images.name, progress=progress
    )
    return not_blank(ranges, graph)


def not_blank(ranges: Ranges, graph: ir.Model) -> Ranges:
    """The same ranges. Raises CalibrationError where every image was one colour throughout: nothing can be scaled by that."""
    seen = ranges.tensors.get(graph.graph.inputs[0].name or "")
    if seen is not None and seen.min == seen.max:
        what = f"every calibration image is the same throughout: {seen.max:g} everywhere after preprocessing"
        raise CalibrationError(what, remedy="Point `calibration.data` at images like those that the engine will see")
    return ranges
