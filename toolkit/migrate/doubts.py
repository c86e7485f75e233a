"""Doubts: what tells, before any build, that old scales are not of this network, or of other pictures than its recipe makes."""

from __future__ import annotations

import onnx_ir as ir

from toolkit.calibration import Ranges
from toolkit.graph.magnitude import magnitudes
from toolkit.images.synthetic import synthetic
from toolkit.migrate.cache import Cache
from toolkit.migrate.scales import SYMMETRIC
from toolkit.recipe import Recipe

# A scale that was taken for a magnitude, or the other way round, is off by 127. On nine classifiers that others trained, real
# pictures reach 0.35 to 28.5 times what these do.
PICTURES, FAR = 4, 50
LIKELY = (  # how far the input reached, and what preprocessing does so
    (0.4, 1.05, "pixels / 255, or from -1 to 1"),
    (1.9, 2.75, "ImageNet's mean and std behind pixels / 255"),
    (90.0, 160.0, "pixels less a mean, not scaled"),
    (200.0, 256.0, "pixels as they are, 0 to 255"),
)


def doubts(cache: Cache, ranges: Ranges, recipe: Recipe, graph: ir.Model, *, proven: bool) -> list[str]:
    """What to say of the scales. Those of other tensors than the input are looked at where no images tell their cost (`proven`),
    unless another preprocessing, which moves them all, is the likely reason."""
    reach, largest = _reach(cache, recipe, graph)
    if reach <= 0 or 0.4 * largest <= reach <= 1.05 * largest:
        return [] if proven else doubtful_scales(ranges, recipe, graph)
    likely = next((what for low, high, what in LIKELY if low <= reach <= high), None)
    what = f"WARNING: the old scale of the input reaches to {reach:.3g}, and [preprocess] gives values up to {largest:.3g}"
    said = [f"{what}: the old pipeline had another mean, std or scale (likely: {likely or 'see the old code'})"]
    return said if proven or likely else [*said, *doubtful_scales(ranges, recipe, graph)]


def _reach(cache: Cache, recipe: Recipe, graph: ir.Model) -> tuple[float, float]:
    """How far the input reached as its scale says, 0 without one, and how far it does by the recipe's preprocessing.

    A calibrator may clip the largest values a little, and the brightest picture may have been missing.
    """
    how = recipe.preprocess
    ends = [(pixel * how.scale - m) / s for pixel in (0, 255) for m, s in zip(how.mean, how.std, strict=True)]
    return SYMMETRIC * cache.scales.get(graph.graph.inputs[0].name or "", 0.0), max(map(abs, ends))


def doubtful_scales(ranges: Ranges, recipe: Recipe, graph: ir.Model) -> list[str]:
    """A remark where ranges are `FAR` from what their tensors reach on a few synthetic pictures; for want of any others.

    Such pictures do not tell how good a scale is, only that it is of another order of magnitude.
    """
    pictures = synthetic(recipe.preprocess.outside, PICTURES)
    seen = magnitudes(graph, (batch.astype("float32") for batch in pictures.batches(1)))
    known = {name: (one.max, seen[name]) for name, one in ranges.tensors.items() if one.max > 0 and seen.get(name, 0.0) > 0}
    far = {name: ends for name, ends in known.items() if not ends[1] / FAR <= ends[0] <= ends[1] * FAR}
    if not far:
        return []
    name, (reach, most) = max(far.items(), key=lambda one: max(one[1][0] / one[1][1], one[1][1] / one[1][0]))
    what = f"WARNING: {len(far)} of {len(known)} scales are more than {FAR} times off what synthetic pictures give"
    return [f"{what} ('{name[:60]}' reaches to {reach:.3g}, {most:.3g} was seen): are they scales, and of this network?"]
