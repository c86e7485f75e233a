"""Pictures: the way back from a file of results to the images that its answers are about, where they are on this machine."""

from __future__ import annotations

from typing import Any

from toolkit.engine.locations import is_here, recipe_of
from toolkit.errors import DataError, EngineError
from toolkit.harness.results import Results
from toolkit.images.dataset import Images, class_names, open_data
from toolkit.recipe import Recipe


def pictures(results: Results, data: str) -> Images | None:
    """The data set whose SHA-256 is `data`, as the recipes in the manifests name it; None where it is not here any more."""
    count = next((len(a.top1) for a in results.answers if a.data == data), 0)
    tried = set()
    for manifest in results.manifests.values():
        recipe = _recipe(manifest)
        data_of = recipe.accept.data if recipe is not None else None
        if recipe is None or data_of is None or not is_here(data_of) or (data_of, recipe.preprocess) in tried:
            continue
        tried.add((data_of, recipe.preprocess))
        try:
            names = class_names(recipe) if is_here(recipe.reference.classes) else None
            images = open_data(data_of, recipe.preprocess, count, classes=names)
        except DataError:
            continue  # moved or deleted since: the report then says that the pictures are not here
        if images.sha256 == data:
            return images
    return None


def _recipe(manifest: dict[str, Any]) -> Recipe | None:
    try:
        return recipe_of(manifest["recipe"], str(manifest.get("seal")), str(manifest.get("name")))
    except (EngineError, KeyError):
        return None  # an engine that no recipe built
