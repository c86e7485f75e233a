"""Trip: target-independent build state of a recipe, and the typed graph that a target gets from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import onnx_ir as ir

from toolkit.calibration import Ranges
from toolkit.cpu import has_vnni
from toolkit.errors import RecipeError
from toolkit.graph.edit import require_matches
from toolkit.graph.fp8 import first_layers, holds_fp8
from toolkit.graph.fp16 import to_bf16, to_fp16, unsafe_on_cpu
from toolkit.graph.overflow import fp16_overflow
from toolkit.graph.pixels import PREFIX, Form, take_pixels
from toolkit.graph.qdq import needs_vnni, quantize, quantized_layers, scheme_of
from toolkit.graph.rounded import Roundings
from toolkit.graph.scheme_cpu import miscounts
from toolkit.graph.variance import Island, vanishing, variances
from toolkit.graph.weights import Room
from toolkit.images.dataset import Images, open_data
from toolkit.manifest import Baseline
from toolkit.recipe import Recipe
from toolkit.reference.check import Agreement
from toolkit.reference.source import Source
from toolkit.reference.standing import Standing
from toolkit.runtime.foreign import SATURATES
from toolkit.types import ON_CPU, Compiled, Float, Target


class Trip(NamedTuple):
    """How far a recipe has come before any target is chosen."""

    recipe: Recipe
    source: Source  # the reference, and its graph as exported
    agreement: Agreement  # how well the two agree
    judged: Images | None  # the images of the proof: those of `[accept]`, or calibration images that were held back
    truth: Float | None  # the reference's logits on them; None without any, or without proof
    baseline: Baseline  # what an engine keeps of the reference
    graph: ir.Model  # FP32, equalized where the recipe says so
    ranges: Ranges | None  # what INT8 is scaled by
    peaks: Mapping[str, float]  # how large each tensor of `graph` becomes on some images, where FP16 must hold it
    roundings: Roundings  # what `graph`'s weights are in INT8
    remarks: tuple[str, ...] = ()  # what was chosen or left out when weights and images were read
    standing: Standing = Standing(images=0, doubt="it was not asked")  # how well the reference itself does


def typed(trip: Trip, target: Target) -> ir.Model:
    """The final graph for `target`: quantized by its scheme, then FP16 around that. Raises GraphError, CalibrationError."""
    recipe = trip.recipe
    refuse_precision(recipe, target)
    if holds_fp8(trip.graph) and not target.is_nvidia:
        what = f"{recipe.name}'s file has FP8 inside, which target {target} computes wrongly"
        raise RecipeError(what, remedy="Build for --target rtx:sm89+, or give the floating-point file")
    scheme, keep = scheme_of(target), recipe.precision.keep_fp32
    require_matches(trip.graph, keep, "precision.keep_fp32")
    keep = (*keep, *(node for found in foreseen(trip) for node in found.nodes), PREFIX)
    graph = with_input(trip.graph, recipe, target)
    if recipe.precision.quantized:
        assert trip.ranges is not None
        room = room_of(recipe, target)
        rounded = trip.roundings.of(graph, recipe.precision, room)
        graph = quantize(graph, trip.ranges, recipe.precision, recipe.calibration, scheme=scheme, room=room, rounded=rounded)
        if scheme == "cpu":
            keep = (*keep, *quantized_layers(graph))  # in INT8 they hold no FP16; Casts between would break the fusion
    if target.kind == "cpu":
        keep = (*keep, *unsafe_on_cpu(graph))
    if recipe.precision.compute == "bf16":
        return to_bf16(graph, keep)
    return to_fp16(graph, keep) if recipe.precision.compute == "fp16" else graph


def with_input(graph: ir.Model, recipe: Recipe, target: Target) -> ir.Model:
    """The FP32 graph with the input that an engine for `target` has: pixels where preprocessing is `inside` (`pixels.py`)."""
    if not recipe.preprocess.inside:
        return graph
    form: Form = "plain"
    if not target.is_nvidia and recipe.precision.int8:
        form = "quantized"
    elif not target.is_nvidia and recipe.precision.compute == "fp32":
        form = "folded"
    return take_pixels(graph, recipe.preprocess, form, recipe.precision.keep)


def refuse_precision(recipe: Recipe, target: Target) -> None:
    """Raise RecipeError where no library runs the recipe's precision on `target`; a backend refuses single SMs by name."""
    for key, wanted in (("fp8 = true", recipe.precision.fp8), ('compute = "bf16"', recipe.precision.compute == "bf16")):
        if wanted and not target.is_nvidia:
            what = f"`{key}` is for tensorrt and rtx; target {target} computes no such type"
            raise RecipeError(what, remedy="Build for --target rtx:sm89+, or use int8 and fp16")
    if recipe.precision.pools and not target.is_nvidia:
        what = f"`pools` says where tensorrt and rtx want Q/DQ pairs; target {target} has its own places for them"
        raise RecipeError(what, remedy="Remove `pools` from [precision]")


def room_of(recipe: Recipe, target: Target) -> Room:
    """What INT8 weights may use of their 8 bits: all where sums have 32 bits, which a CPU without VNNI has not."""
    narrow = recipe.precision.reduce_range
    if narrow is None:
        narrow = target.kind in ON_CPU and recipe.build.cpu == "any"
    return "pairs" if narrow else "full"


def for_cpus(compiled: Compiled, graph: ir.Model, target: Target) -> Compiled:
    """The same, with the CPUs that an INT8 engine is right on; and a note where this one is not among them."""
    if target.kind not in ON_CPU or not quantized_layers(graph):
        return compiled
    cpus, notes = "vnni" if needs_vnni(graph) else "any", compiled.notes
    if cpus == "vnni" and not has_vnni():
        notes = (*notes, f"{SATURATES}; this machine is such a CPU, so the verdict is that of a saturated engine")
    return msgspec.structs.replace(compiled, settings={**compiled.settings, "cpu": cpus}, notes=notes)


def foreseen(trip: Trip) -> tuple[Island, ...]:
    """What FP16 could not hold, by the graph's form, on the trip's `peaks` and by its ranges: those nodes stay in FP32."""
    if trip.recipe.precision.compute == "bf16":
        return variances(trip.graph)  # bfloat16 holds whatever FP32 does, but 8 bits are few for a variance
    if trip.recipe.precision.compute != "fp16":
        return ()
    seen = dict(trip.peaks)
    for name, found in (trip.ranges.tensors if trip.ranges is not None else {}).items():
        seen[name] = max(seen.get(name, 0.0), -found.min, found.max)
    branches = variances(trip.graph)
    kept = {node for branch in branches for node in branch.nodes}
    others: tuple[Island, ...] = (*vanishing(trip.graph), *fp16_overflow(trip.graph, seen))
    return (*branches, *(found for found in others if not kept.issuperset(found.nodes)))


def unproven(trip: Trip) -> tuple[str, ...]:
    """Warnings where a quantized engine is not judged, or is judged on the images that it was scaled by."""
    recipe = trip.recipe
    if not recipe.precision.quantized:
        return ()
    if recipe.accept.data is not None and recipe.accept.data == recipe.calibration_data:
        return ("WARNING: `accept.data` and `calibration.data` are the same images: the verdict is too optimistic",)
    if trip.judged is None:
        return ("WARNING: not judged: too few calibration images to hold some back. Name more, or set `accept.data`",)
    return ()


def unforeseen(trip: Trip) -> tuple[str, ...]:
    """Notes: what was left undone for want of images, and what FP8 leaves out by itself."""
    notes, recipe = [], trip.recipe
    if recipe.accept.data is None and recipe.calibration_data is None:
        notes.append(f"no images named: the export was checked on {trip.agreement.images} seeded synthetic images")
    if recipe.precision.fp8:
        layers = ", ".join(first_layers(trip.graph))
        notes += [f"FP8 leaves out {layers}, which read the image"] if layers else []
    elif recipe.precision.compute == "fp16" and not trip.peaks:
        notes.append("FP16 without calibration images: which tensors overflow was not checked. Set `calibration.data`")
    pools = [node.name for node in trip.graph.graph if miscounts(node)] if recipe.precision.int8 else []
    if pools and any(target.kind in ON_CPU for target in Target.parse_many(recipe.build.target)):
        notes.append(f"left in floating point: {', '.join(map(str, pools))}: ONNX Runtime's INT8 average errs on such padding")
    return (*notes, *unproven(trip))


def calibration_images(recipe: Recipe, limit: int | None = None) -> Images:
    """The images of `[calibration]` as the reference takes them. Raises RecipeError where it names none, DataError."""
    data = recipe.calibration_data
    if data is None:
        raise RecipeError(f"{recipe.name} names no images to calibrate on", remedy="Set `calibration.data`")
    return open_data(data, recipe.preprocess.outside, limit or recipe.calibration.images, labeled=False)
