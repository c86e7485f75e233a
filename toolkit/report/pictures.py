"""Pictures: the way back from a file of results to the images that its answers are about, where they are on this machine."""

from __future__ import annotations

from typing import Any

import msgspec

from toolkit.errors import DataError
from toolkit.harness.results import Results
from toolkit.images.dataset import Images, class_names, open_data
from toolkit.recipe import Recipe


def pictures(results: Results, data: str) -> Images | None:
    """The data set whose SHA-256 is `data`, as the recipes in the manifests name it; None where it is not here any more."""
    count = next((len(a.top1) for a in results.answers if a.data == data), 0)
    tried = set()
    for manifest in results.manifests.values():
        recipe = _recipe(manifest)
        if recipe is None or recipe.accept.data is None or (recipe.accept.data, recipe.preprocess) in tried:
            continue
        tried.add((recipe.accept.data, recipe.preprocess))
        try:
            images = open_data(recipe.accept.data, recipe.preprocess, count, classes=class_names(recipe))
        except DataError:
            continue  # moved or deleted since: the report then says that the pictures are not here
        if images.sha256 == data:
            return images
    return None


def _recipe(manifest: dict[str, Any]) -> Recipe | None:
    try:
        return msgspec.convert(manifest.get("recipe"), Recipe)
    except msgspec.ValidationError:
        return None  # an engine that no recipe built
