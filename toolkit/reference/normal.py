"""Normal: [preprocess] held against what an ONNX file does to its input by itself, so that no picture is normalized twice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from toolkit.graph.load.normal import Normal, normalization_of
from toolkit.recipe import Preprocess, Recipe

OWN = ("scale", "mean", "std")
NEAR = 1.5  # times: scales of 1/255 and 1/256 are one, 1 and 1/255 are not


def fit_normalization(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the pixels that its ONNX file expects, where that normalizes by itself and nobody said `mean` and `std`;
    and what is to be said of it. A recipe that says otherwise stays, with a warning."""
    if recipe.reference.onnx is None:
        return recipe, ()
    found = normalization_of(Path(recipe.reference.onnx), recipe.reference.input)
    if found is None:
        return recipe, ()
    how, open_keys = recipe.preprocess, [key for key in OWN if key in recipe.assumed]
    wanted = plain(how, found)
    if "mean" in open_keys and "std" in open_keys and ("scale" in open_keys or near(how.scale, found.scale)):
        wanted = wanted if "scale" in open_keys else msgspec.structs.replace(wanted, scale=how.scale)
        left = tuple(key for key in recipe.assumed if key not in OWN)
        return msgspec.structs.replace(recipe, preprocess=wanted, assumed=left), (taken(found),)
    if not any(how.mean) and all(value == 1 for value in how.std) and near(how.scale, found.scale):
        return recipe, ()
    shown = f"scale = {wanted.scale:.6g}, mean = {_shown(wanted.mean)}, std = {_shown(wanted.std)}"
    return recipe, (f"WARNING: {found.text}, and [preprocess] does so before it. Set {shown}, unless it was trained so",)


def plain(how: Preprocess, found: Normal) -> Preprocess:
    """Pixels as the file expects them."""
    n = how.channels
    return msgspec.structs.replace(how, scale=found.scale, mean=(0.0,) * n, std=(1.0,) * n)


def taken(found: Normal) -> str:
    """The note of it."""
    pixels = "0 to 255" if found.scale == 1 else "0 to 1"
    return f"{found.text}: it is given pixels of {pixels}, mean 0 and std 1"


def near(one: float, other: float) -> bool:
    return 1 / NEAR <= one / other <= NEAR if one > 0 and other > 0 else False


def _shown(values: tuple[float, ...]) -> list[int]:
    return [int(value) for value in values]
