"""Normal: [preprocess] compared with what a model does to its input by itself, so that no picture is normalized twice."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from toolkit.graph.load.normal import Normal, color_of, normalization_of
from toolkit.recipe import Preprocess, Recipe
from toolkit.recipe.modules import held
from toolkit.reference.beside import beside

OWN = ("scale", "mean", "std")
NEAR = 1.5  # times: scales of 1/255 and 1/256 are one, 1 and 1/255 are not


def fit_normalization(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the pixels that its ONNX file or module expects, where that normalizes by itself, or else as a file beside
    it says, where nobody said `mean` and `std`; and what is to be said of it. What a recipe says stays, with a warning."""
    found = _inside(recipe)
    if found is None:
        fitted, told = _as_beside(recipe)
        return fitted, (*told, *_turned_round(fitted))
    colored, told = _colored(recipe, found)
    fitted, more = _scaled(colored, found)
    return fitted, (*more, *told)


def _inside(recipe: Recipe) -> Normal | None:
    """What the model does itself. Raises RecipeError where it is a module that another process held."""
    if recipe.reference.onnx is not None:
        return normalization_of(Path(recipe.reference.onnx), recipe.reference.input)
    if not recipe.reference.in_memory:
        return None
    from toolkit.reference.inside import normalization_in

    found = normalization_in(held(recipe.reference.weights or ""), recipe.preprocess)
    return found and found._replace(who="module")


def _scaled(recipe: Recipe, found: Normal) -> tuple[Recipe, tuple[str, ...]]:
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


def _colored(recipe: Recipe, found: Normal) -> tuple[Recipe, tuple[str, ...]]:
    """With the order of colors that the means in the file are in."""
    how = recipe.preprocess
    if found.color is None or how.color == "L":
        return recipe, ()
    if "color" in recipe.assumed:
        left = tuple(key for key in recipe.assumed if key != "color")
        how = msgspec.structs.replace(how, color=found.color)
        return msgspec.structs.replace(recipe, preprocess=how, assumed=left), (ordered(found),) if found.color == "BGR" else ()
    if how.color != found.color:
        what = f"WARNING: {ordered(found)}, and `color` is {how.color}. Set color = {found.color}, unless it was trained so"
        return recipe, (what,)
    return recipe, ()


def _as_beside(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """With what a file beside the model says of its pictures, where nobody said `mean` and `std`."""
    model, how = recipe.reference.onnx or recipe.reference.weights or "", recipe.preprocess
    found = beside(Path(model)) if Path(model).is_absolute() and how.channels == 3 else None
    if found is None:
        return recipe, ()
    says = f"{found.where} beside the model says mean = {list(found.values['mean'])}, std = {list(found.values['std'])}"
    if "mean" in recipe.assumed and "std" in recipe.assumed:
        keys = ("mean", "std", *(key for key in ("scale", "color", "size") if key in recipe.assumed and key in found.values))
        values = {key: found.values[key] for key in keys}
        if "size" in keys and how.resize is None:
            values["resize"] = found.values.get("resize")
        left = tuple(key for key in recipe.assumed if key not in values)
        fitted = msgspec.structs.replace(recipe, preprocess=msgspec.structs.replace(how, **values), assumed=left)
        return fitted, (f"{says}: so it is taken",)
    same = all(np.allclose(getattr(how, key), found.values[key], atol=1e-3) for key in ("mean", "std"))
    return recipe, () if same else (f"WARNING: {says}, and [preprocess] says others",)


def _turned_round(recipe: Recipe) -> tuple[str, ...]:
    """Of a recipe's own means, where they are ImageNet's."""
    how = recipe.preprocess
    free = recipe.reference.onnx is not None or recipe.reference.in_memory
    order = color_of(np.array(how.mean) * (1 if max(how.mean) <= 1 else 1 / 255)) if free else None
    if order is None or order == how.color:
        return ()
    what = f"WARNING: `mean` is ImageNet's in the order of {order}, and `color` is {how.color}"
    return (f"{what}. Set color = {order}, or turn `mean` round",)


def plain(how: Preprocess, found: Normal) -> Preprocess:
    """Pixels as the file expects them."""
    n = how.channels
    return msgspec.structs.replace(how, scale=found.scale, mean=(0.0,) * n, std=(1.0,) * n)


def taken(found: Normal) -> str:
    """The note of it."""
    pixels = "0 to 255" if found.scale == 1 else "0 to 1"
    return f"{found.text}: it is given pixels of {pixels}, mean 0 and std 1"


def ordered(found: Normal) -> str:
    """The note of its colors."""
    if not found.nodes:
        return f"{found.text}, in the order of {found.color}"
    return f"the means in the {found.who} are ImageNet's, in the order of {found.color}"


def near(one: float, other: float) -> bool:
    return 1 / NEAR <= one / other <= NEAR if one > 0 and other > 0 else False


def _shown(values: tuple[float, ...]) -> list[int]:
    return [int(value) for value in values]
