"""Assumed: how a model's file wants its pictures nothing in it tells, so what a recipe leaves to the defaults is noted.

The note is made again each time a recipe is read, since its keys may have been edited, and stands in no recipe's text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from toolkit.recipe.preprocess import Preprocess
    from toolkit.recipe.recipe import Recipe, Reference

GRAY = {"color": "L", "mean": (0.449,), "std": (0.226,)}  # the mean of ImageNet's three channels
ASSUMED = "assumed, since nothing says otherwise: "


def with_gray(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's plain values; of gray pictures whose `mean` and `std` nobody said they are those of `GRAY`."""
    how = values.get("preprocess")
    if isinstance(how, dict) and how.get("color") == "L" and not {"mean", "std"} & how.keys():
        return {**values, "preprocess": {**how, **GRAY}}
    return values


def left_open(recipe: Recipe, said: Collection[str]) -> Recipe:
    """With `assumed`; `said` are the keys of [preprocess] that were given."""
    notes = tuple(one for one in recipe.notes if not one.startswith("assumed, "))  # without those of an earlier look
    return msgspec.structs.replace(recipe, assumed=open_keys(recipe.reference, said), notes=notes)


def open_keys(reference: Reference, said: Collection[str]) -> tuple[str, ...]:
    """The keys of [preprocess] that a recipe has to guess, without those that were given."""
    if reference.onnx is None and re.match(r"(packaged|torchvision|random):", reference.weights or ""):
        return ()
    free = reference.onnx is not None or reference.in_memory  # a file of weights is a ResNet's, fed as torchvision's are
    keys = ("size", "color", "scale", "mean", "std") if free else ("size", "mean", "std")
    return tuple(key for key in keys if key not in said)


def note(how: Preprocess, keys: Sequence[str]) -> str:
    shown = {key: getattr(how, key) for key in keys}
    said = (f"{k} = {v if k == 'color' else f'{v:.6g}' if k == 'scale' else list(v)}" for k, v in shown.items())
    return f"{ASSUMED}{', '.join(said)}"

