"""diff: in what two engines, graphs or recipes differ, from their nodes to their answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir

from toolkit.diff.nodes import changes, layers
from toolkit.diff.result import Diff, Difference, Latency, LayerDiff
from toolkit.diff.running import run
from toolkit.diff.sides import Side, open_side
from toolkit.diff.tensors import Ratios, tensors
from toolkit.engine.locations import is_here
from toolkit.errors import DataError, GraphError
from toolkit.graph.channels import noise
from toolkit.images.dataset import Images, open_data
from toolkit.reference.names import refuse_unfit
from toolkit.types import Float, Stage, quiet

__all__ = ["Diff", "Difference", "Latency", "LayerDiff", "diff"]
IMAGES = 16  # that tensors are compared on
SECONDS = 4.0  # of latency, for both


def diff(a: str | Path, b: str | Path, *, data: str | None = None, seconds: float = SECONDS, stage: Stage = quiet) -> Diff:
    """B against A: nodes, precisions, scales, weights, the SNR of each common tensor, latency where both run, paired verdict.

    Each is an engine's folder, an .onnx file or a recipe. `data`: images in place of those that a recipe names; where there are
    none, the graphs are compared on noise, and no verdict is given. `seconds`: of latency; 0 leaves it out.
    Raises EngineError, GraphError, RecipeError, DataError.
    """
    one = open_side(Path(a), stage)
    two = open_side(Path(b), stage, one.trip)
    notes: list[str] = []
    images, few = _images(one, two, data, notes)
    found = _tensors(one, two, few, notes, stage)
    alike = _takes(one) == _takes(two) or _same_pictures(one, two)
    latency, verdict = run(one, two, images, seconds, notes, stage) if alike else (None, None)
    logits = found.get(one.graph.graph.outputs[0].name or "")
    nodes = [{node.name or "": node for node in side.graph.graph} for side in (one, two)]
    if not nodes[0].keys() & nodes[1].keys():
        notes.append("no node of one has a name of the other's: they were exported in different ways, and no layer can be paired")
    return Diff(
        names=(one.name, two.name),
        kinds=(one.kind, two.kind),
        targets=(one.target, two.target),
        nodes=(len(one.graph.graph), len(two.graph.graph)),
        recipe=changes(one, two),
        operators=_operators(one, two),
        only=(tuple(name for name in nodes[0] if name not in nodes[1]), tuple(name for name in nodes[1] if name not in nodes[0])),
        layers=layers(one.graph, two.graph, found),
        images=len(few),
        logits=logits.plain if logits is not None else None,
        latency=latency,
        verdict=verdict,
        notes=tuple(notes),
    )


def _takes(side: Side) -> tuple[list[int | str], ir.DataType | None]:
    """The shape of one image, and its type."""
    value = side.graph.graph.inputs[0]
    return [size if isinstance(size, int) else "N" for size in value.shape or ()][1:], value.dtype


def _same_pictures(one: Side, two: Side) -> bool:
    """Whether both can be given the same pictures, though one takes pixels and the other preprocessed images."""
    return one.recipe is not None and two.recipe is not None and one.recipe.preprocess.outside == two.recipe.preprocess.outside


def _operators(one: Side, two: Side) -> tuple[tuple[str, int, int], ...]:
    a, b = (Counter(node.op_type for node in side.graph.graph) for side in (one, two))
    return tuple((op, a[op], b[op]) for op in sorted({*a, *b}) if a[op] != b[op])


def _tensors(one: Side, two: Side, few: list[Float], notes: list[str], stage: Stage) -> dict[str, Ratios]:
    if _takes(one) != _takes(two):
        if _same_pictures(one, two):
            notes.append("one takes pixels, the other preprocessed images: their tensors are not compared")
        else:
            shapes = " and ".join(f"{kind.name if kind else '?'} {shape}" for shape, kind in (_takes(one), _takes(two)))
            notes.append(f"they take images of different shapes or types, {shapes}: only their nodes are compared")
        return {}
    if broken := one.broken or two.broken:
        notes.append(f"tensors are not compared: {broken}")
        return {}
    stage("tensors of both")
    try:
        return tensors(one.graph, two.graph, few)
    except GraphError as error:
        notes.append(f"tensors are not compared: {error.what}")
        return {}


def _images(one: Side, two: Side, data: str | None, notes: list[str]) -> tuple[Images | None, list[Float]]:
    """Images to judge on, and the few that tensors are compared on."""
    recipe = one.recipe or two.recipe
    if recipe is None and data is not None:
        what = "two bare graphs do not say how a picture becomes an input"
        raise DataError(what, remedy="Compare a graph with an engine or a recipe, or leave out --data")
    if recipe is not None:
        if one.recipe is not None and two.recipe is not None and not _same_pictures(one, two):
            notes.append(f"they preprocess pictures in different ways: both are given what {one.name} wants")
        side = one if one.recipe is not None else two
        specs = (data,) if data is not None else (recipe.accept.data, recipe.calibration_data)
        for spec in dict.fromkeys(spec for spec in specs if spec is not None):
            try:
                if data is None and not is_here(spec):  # of an engine that was built elsewhere
                    raise DataError(f"'{spec}' is on another machine")
                images = _judged(side, spec, labeled=data is not None or spec == recipe.accept.data)
                return images, list(images.take(range(min(IMAGES, images.count))).batches(1))
            except DataError as error:
                if data is not None:
                    raise
                notes.append(f"the recipe's images are not here: {error.what}")
    notes.append(f"without images the two are compared on random noise{': name some with --data DIR' if recipe else ''}")
    batch = np.concatenate(noise(one.graph))
    return None, [batch[i : i + 1] for i in range(len(batch))]


def _judged(side: Side, spec: str, labeled: bool) -> Images:
    """As `Engine.judge` opens them; folders of calibration images need not be the model's classes. Raises DataError."""
    assert side.recipe is not None and side.model is not None
    recipe, model = side.recipe, side.model
    images = open_data(spec, recipe.preprocess, recipe.accept.images, classes=model.classes, labeled=labeled)
    refuse_unfit(model, images, side.name)
    return images
