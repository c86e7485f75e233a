"""Subject: an engine that is asked why: its typed graph, the FP32 graph it was made of, and images to run through both."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit import pipeline
from toolkit.disk.drafts import scratch
from toolkit.engine.engine import Engine
from toolkit.engine.layout import RANGES
from toolkit.engine.locations import is_here, require_reference
from toolkit.errors import DataError, EngineError, ToolkitError
from toolkit.graph.rounding import as_rounded, holds_half
from toolkit.images.dataset import Images, open_data
from toolkit.manifest import Manifest
from toolkit.recipe import Recipe
from toolkit.settle import hold_back
from toolkit.trip import Trip, room_of
from toolkit.types import Array, Float, Stage
from toolkit.why.strip import stripped

TWIN = "the engine takes pixels; its layers are those of the same engine with its preprocessing outside"
ANALYSED, PROVEN = 16, 32  # images that are looked into, and those that remedies are proven on


class Subject(NamedTuple):
    """`trip` is the recipe's, as far as a target is chosen; None where its reference is not here."""

    engine: Engine
    recipe: Recipe
    typed: ir.Model  # in float32, with Casts where half precision rounds
    plain: ir.Model
    trip: Trip | None
    images: tuple[Float, ...]  # float32 [1, ...]
    names: tuple[str, ...]
    proof: Float  # other images, in one batch
    taken: Array  # `images` in one batch, as the engine itself takes them
    notes: tuple[str, ...]

    @property
    def manifest(self) -> Manifest:
        return self.engine.manifest


def open_subject(path: Path, data: str | None, stage: Stage) -> Subject:
    """Raises EngineError (no engine, no graph, nothing narrowed), DataError (no images)."""
    engine = Engine.open(path)
    if engine.manifest.precision == "fp32":
        what = f"{engine.name} computes in FP32, as its reference does: no layer loses anything to its precision"
        raise EngineError(what, remedy="Ask why of an INT8 or FP16 engine")
    images, proof, notes = _images(engine, data)
    first = tuple(images.batches(1))
    trip, more = _trip(engine, stage)
    if trip is not None and engine.recipe.precision.int8 and not engine.recipe.preprocess.inside:
        room = room_of(engine.recipe, engine.manifest.to_target())
        trip.roundings.take(trip.graph, engine.graph, engine.recipe.precision, room)
    inside = engine.recipe.preprocess.inside
    typed = _twin(engine, trip, more) if inside else engine.graph
    typed = as_rounded(typed) if holds_half(typed) else typed
    plain = trip.graph if trip is not None else stripped(typed)
    names = tuple(images.name(index) for index in range(len(first)))
    taken = np.concatenate(list(images.having(inside).batches(1)))
    more = (*more, TWIN) if inside else more
    return Subject(engine, _outside(engine.recipe), typed, plain, trip, first, names, proof, taken, (*notes, *more))


def _outside(recipe: Recipe) -> Recipe:
    return msgspec.structs.replace(recipe, preprocess=recipe.preprocess.outside)


def _twin(engine: Engine, trip: Trip | None, why_not: tuple[str, ...]) -> ir.Model:
    """The typed graph of an engine that takes pixels, as it would be if it took preprocessed images. Raises EngineError."""
    if trip is None:
        what = f"{engine.name} takes pixels, and is analyzed through its FP32 network: {why_not[0]}"
        raise EngineError(what, remedy="Ask where its reference and its images are")
    return pipeline.typed(trip, engine.manifest.to_target())


def _trip(engine: Engine, stage: Stage) -> tuple[Trip | None, tuple[str, ...]]:
    """The recipe's trip with the engine's own ranges, which only the same graph accepts; None, and why, without it.

    The images that the ranges of a recipe are drawn from do not depend on what it left to measurement (`settle.hold_back`).
    """
    with scratch() as folder:
        own = folder / RANGES
        if RANGES in engine.contents:
            own.write_bytes(engine.contents[RANGES])
        try:
            require_reference(engine.recipe)
            trip = pipeline.prepare(_given(engine.recipe, own), stage, proof=False)
            return trip._replace(recipe=_outside(engine.recipe)), ()
        except ToolkitError as error:
            what = f"the FP32 network behind the engine is not here ({error.what})"
    rest = "the engine's own weights are used instead, so the cost of rounding them is not seen, and no remedy can be tried"
    return None, (f"{what}: {rest}",)


def _given(recipe: Recipe, ranges: Path) -> Recipe:
    """The recipe with ranges of its own, where there are any."""
    if not ranges.is_file():
        return recipe
    return msgspec.structs.replace(recipe, calibration=msgspec.structs.replace(recipe.calibration, ranges=str(ranges)))


def _images(engine: Engine, data: str | None) -> tuple[Images, Float, tuple[str, ...]]:
    """Images to analyze, and others to check remedies on: those of `[accept]`, else those that were held back for the verdict,
    as ranges clip nothing of the images that they are drawn from; else later ones of the calibration set."""
    recipe = engine.recipe
    how, classes = recipe.preprocess.outside, engine.manifest.classes
    given = [spec for spec in (recipe.calibration_data, recipe.accept.data) if spec is not None]
    spec = data or next((spec for spec in given if is_here(spec)), None)
    if spec is None:
        what = f"are not here ({given[0]})" if given else "are named nowhere"
        what = f"the images of {engine.name} {what}"
        raise DataError(what, remedy="Name some: --data DIR")
    try:
        held_back = hold_back(recipe) if data is None and recipe.accept.data is None else None
        if held_back is not None and held_back.whole is not None and held_back.judging is not None:
            return _first(held_back.whole, ANALYSED), np.concatenate(list(_first(held_back.judging, PROVEN).batches(PROVEN))), ()
        images = open_data(spec, how, ANALYSED, classes=classes)
    except (DataError, OSError) as error:
        what = error.what if isinstance(error, DataError) else str(error)
        raise DataError(f"the images of {engine.name} are not here: {what}", remedy="Name others: --data DIR") from error
    other = recipe.accept.data if data is None and is_here(recipe.accept.data) else None
    try:
        proof = open_data(other or spec, how, PROVEN if other and other != spec else ANALYSED + PROVEN, classes=classes)
    except DataError:
        other, proof = None, open_data(spec, how, ANALYSED + PROVEN, classes=classes)
    batch = np.concatenate(list(proof.batches(PROVEN)))
    held = batch if other and other != spec else batch[ANALYSED:]
    if len(held) == 0:
        return images, batch, (f"{spec} holds {len(batch)} images: remedies are checked on the images that were analyzed",)
    return images, held, ()


def _first(images: Images, count: int) -> Images:
    return images.take(range(min(count, images.count)))
