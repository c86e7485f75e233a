"""Settle: calibration images -> what INT8 is scaled by. Collects ranges, and has chosen what a recipe leaves to measurement."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit import calibration
from toolkit.calibration import Ranges, Tally, origin_of
from toolkit.disk.files import sha256_bytes
from toolkit.errors import CalibrationError, RecipeError
from toolkit.graph.channels import IMAGES, lane_threads
from toolkit.graph.equalize import Mode
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.prescale import equalized
from toolkit.graph.qdq import scheme_of
from toolkit.graph.rounded import Roundings
from toolkit.graph.run import predicting_runner
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.select import LEAST, SHARE, Selected, Settings, select
from toolkit.graph.variance import variances
from toolkit.images.dataset import Images, open_data
from toolkit.recipe import Recipe
from toolkit.trip import calibration_images, room_of
from toolkit.types import ON_CPU, Classifier, Progress, Target

SEED = 0
CHOOSING, JUDGING = 32, 96  # images held back, at most


class Held(NamedTuple):
    """The calibration images: ranges are drawn from some, settings chosen on others, builds judged on others again.

    Settings once chosen, ranges are drawn from `whole`: the first two, one behind the other, where the choice took from what
    ranges were to have. No `ranging` only where the recipe brings its ranges and names no images.
    """

    ranging: Images | None
    choosing: Images | None
    judging: Images | None
    whole: Images | None


Tallies = dict[tuple[str, str], Tally]  # by layers and weights of the graph


class Settled(NamedTuple):
    """The recipe with nothing left open, the FP32 graph as equalized, its ranges, what its weights are in INT8, and why."""

    recipe: Recipe
    graph: ir.Model
    ranges: Ranges
    roundings: Roundings
    reasons: tuple[str, ...]


def hold_back(recipe: Recipe) -> Held:
    """Part the calibration images. Raises RecipeError, DataError.

    What the data holds beyond `calibration.images` is held back first; where that is too little, a quarter for the choice and an
    eighth for the judgement, by the images' digests: the same images are parted alike, in whatever order and by whatever names
    they come. A choice needs settings that are open; a judgement, no `[accept]`.
    `whole` does not depend on what is open: the ranges of a recipe are those of the same recipe with its choices written down.
    """
    wanted = recipe.calibration.images
    data = recipe.calibration_data
    if data is None:
        images = None if recipe.calibration.ranges is not None else calibration_images(recipe)
        return Held(images, None, None, images)
    everything = open_data(data, recipe.preprocess.outside, labeled=False)
    total = everything.count
    choosing = CHOOSING if recipe.precision.quantized and is_open(recipe) else 0
    judging = JUDGING if recipe.accept.data is None else 0
    if total >= wanted + CHOOSING + judging:
        order = wanted + np.random.default_rng(SEED).permutation(total - wanted)
        whole = ranging = open_data(data, recipe.preprocess.outside, wanted, labeled=False)
        judged, chosen = (np.sort(part) for part in (order[:judging], order[judging : judging + choosing]))
    else:
        order = np.argsort(everything.digests, kind="stable")
        fewest = min(LEAST, total // 4)
        judging, share = min(judging, max(total // 8, fewest)), min(CHOOSING, max(total // 4, fewest))
        judged, chosen, rest = np.split(order, [judging, judging + share])
        whole = everything.take([*rest, *chosen][:wanted])
        ranging = everything.take(rest[:wanted].tolist()) if choosing and len(rest) < whole.count else whole
        chosen = chosen[:choosing]
    choice, judgement = (everything.take(part.tolist()) if part.size else None for part in (chosen, judged))
    return Held(ranging, choice, judgement, whole)


def is_open(recipe: Recipe) -> bool:
    """Whether the recipe leaves a setting of INT8 to measurement."""
    return bool(Settings(recipe.precision, recipe.calibration).open)


def settle(recipe: Recipe, graph: ir.Model, held: Held, target: Target, stage: Callable[[str], Progress]) -> Settled:
    """Equalize and calibrate, as the recipe says, or as `select` finds best for `target`.

    Raises CalibrationError, GraphError.
    """
    settings = Settings(recipe.precision, recipe.calibration)
    if not watched(graph):
        kinds = ", ".join(sorted({node.op_type for node in graph.graph}))
        what = f"{recipe.name} has nothing to quantize: no layer of it runs in INT8; its operators are {kinds}"
        raise CalibrationError(what, remedy='Set `int8 = false`, with `compute = "fp16"` where half the size is wanted')
    if recipe.calibration.ranges is not None:
        return _given(recipe, graph, held)
    assert held.whole is not None
    whole, reasons = held.whole, alike(held.whole)
    roundings = roundings_on(recipe, whole)
    if settings.open and held.choosing is not None and held.choosing.count >= LEAST:
        tallies: Tallies = {}
        found = _select(recipe, graph, held, target, stage, tallies)
        settings, reasons = found.settings, (*reasons, *found.reasons)
        assert held.ranging is not None
        if held.ranging is whole or held.ranging.count >= IMAGES:  # the images that equalization and rounding go by are the same
            ranges = found.ranges if held.ranging is whole else calibrate(recipe, found.graph, whole, stage, tallies)
            return Settled(_with(recipe, settings), found.graph, ranges, found.roundings, reasons)
    elif settings.open:
        plain = settings.simply()
        said = f"{plain.calibration.method}, equalize = {plain.precision.equalize}, weights = {plain.precision.weights}"
        reasons = (*reasons, f"auto: too few calibration images to choose by, so the simple settings are used: {said}")
    settings = settings.simply()
    graph = equalized(graph, settings.precision.equalize, whole.batches(8))
    return Settled(_with(recipe, settings), graph, calibrate(recipe, graph, whole, stage), roundings, reasons)


def _select(
    recipe: Recipe, graph: ir.Model, held: Held, target: Target, stage: Callable[[str], Progress], tallies: Tallies
) -> Selected:
    ranging = held.ranging
    assert ranging is not None and held.choosing is not None
    stage("choose the settings of INT8")
    few = [batch.copy() for batch in islice(ranging.batches(1), IMAGES)]
    share = ranging.take(range(min(SHARE, ranging.count)))
    return select(
        graph,
        Settings(recipe.precision, recipe.calibration),
        few,
        np.concatenate(list(held.choosing.batches(8))),
        lambda one, full: calibrate(recipe, one, ranging if full else share, stage, tallies),
        scheme=scheme_of(target),
        room=room_of(recipe, target),
        runner=lambda quantized: candidate_runner(recipe, quantized, target),
        roundings=roundings_on(recipe, ranging),
    )


def candidate_runner(recipe: Recipe, quantized: ir.Model, target: Target) -> Classifier:
    """A quantized graph as `target` computes it, one of LANES at a time; for a GPU, with FP16 where the recipe says so."""
    if recipe.precision.compute == "fp16" and target.kind not in ON_CPU:
        keep = (*recipe.precision.keep_fp32, *(node for island in variances(quantized) for node in island.nodes))
        quantized = to_fp16(quantized, keep)
    return predicting_runner(quantized, target, lane_threads())


def roundings_on(recipe: Recipe, images: Images | None) -> Roundings:
    """Of a recipe's weights by these images; by those of `[calibration]` where there are none, once they are asked for."""
    return Roundings(lambda pixels: (images or calibration_images(recipe)).having(pixels).batches(8))


def _given(recipe: Recipe, graph: ir.Model, held: Held) -> Settled:
    """With the ranges of the recipe's own file: where equalization is open, it is the one that they are of.

    Scales of equalization come from images: without any, only ranges of a graph that is not equalized can be taken.
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
        candidate = equalized(graph, kind, held.whole.batches(8) if held.whole is not None else ())
        try:
            ranges.check(candidate, watched(candidate))
        except CalibrationError as error:
            fault = fault or error
        else:
            settled = _with(recipe, settings.having(equalize=kind))
            return Settled(settled, candidate, not_blank(ranges, candidate), roundings_on(recipe, held.whole), ())
    assert fault is not None
    if held.ranging is None:
        remedy = "They may be of an equalized graph: set `calibration.data` to the images that they are of"
        raise CalibrationError(fault.what, remedy=remedy)
    raise fault


def _with(recipe: Recipe, settings: Settings) -> Recipe:
    return msgspec.structs.replace(recipe, precision=settings.precision, calibration=settings.calibration)


def calibrate(
    recipe: Recipe, graph: ir.Model, images: Images, stage: Callable[[str], Progress], tallies: Tallies | None = None
) -> Ranges:
    """One pass over the images, unless the same was done before: the ranges that every target draws on. With `tallies`, `images`
    begin with those of earlier calls, which are not run through the same graph again."""
    tensors = watched(graph)
    origin = origin_of(graph, tensors, images.sha256, sha256_bytes(recipe.preprocess.card()))
    kept = calibration.find_ranges(origin, images.count)
    count = f"{images.count} images" if images.count > 1 else "1 image"
    progress = stage(f"calibrate on {count}{', from the cache' if kept else ''}")
    tally, more = None, images
    if tallies is not None:
        tally = tallies.get((origin.layers, origin.weights))
        if tally is not None:
            tallies.clear()  # this graph was chosen; a tally is some 30 MB
        tally = tallies[origin.layers, origin.weights] = tally or Tally()
        more = images.take(range(tally.images, images.count))
    ranges = kept or calibration.collect_cached(
        graph, more.batches(1), tensors, origin=origin, count=images.count, name_of=images.name, progress=progress, tally=tally
    )
    return not_blank(ranges, graph)


def alike(images: Images) -> tuple[str, ...]:
    """A warning where every image is the same one; the first that differs ends the search."""
    batches = images.batches(1)
    first = next(batches).copy()
    if images.count < 2 or any(not np.array_equal(first, batch) for batch in batches):
        return ()
    return (f"WARNING: all {images.count} calibration images are the same: they tell INT8 no more than one would",)


def not_blank(ranges: Ranges, graph: ir.Model) -> Ranges:
    """The same ranges. Raises CalibrationError where every image was one color throughout: nothing can be scaled by that."""
    seen = ranges.tensors.get(graph.graph.inputs[0].name or "")
    if seen is not None and seen.min == seen.max:
        what = f"every calibration image is the same throughout: {seen.max:g} everywhere after preprocessing"
        raise CalibrationError(what, remedy="Point `calibration.data` at images like those that the engine will see")
    return ranges
