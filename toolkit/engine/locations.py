"""Locations: where the files of an engine's recipe lie on the machine that built it.

An engine names them relative to the folder that they share, and no machine. Its builder remembers in its own cache where they
lay, so that `toolkit bench` finds the reference and the images again; elsewhere, or without that cache, nothing is looked for.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from toolkit.disk.files import cache_folder, decode_json, read_regular, write_atomically
from toolkit.errors import DataError, EngineError
from toolkit.recipe import Recipe
from toolkit.recipe.paths import has_word, paths_in, with_paths


def remember(seal: str, recipe: Recipe) -> None:
    """Keep `recipe`, whose paths are absolute, for the engine with that seal. A cache that cannot be written is done without."""
    try:
        path = _record(seal)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.encode(recipe.to_dict()))
    except (OSError, RuntimeError):
        return


def recipe_of(card: dict[str, Any], seal: str, name: str) -> Recipe:
    """The recipe in a manifest, `card`; with absolute paths where the engine with `seal` was built here.

    Raises EngineError, also where `card` itself holds an absolute path: no build writes one, and a stranger's would have files of
    this machine read.
    """
    try:
        recipe = msgspec.convert(card, Recipe)
    except (msgspec.ValidationError, RecursionError) as error:
        what = f"the manifest of {name} has no usable recipe: {error}"
        raise EngineError(what, remedy="Build the engine again") from error
    try:
        return msgspec.convert(decode_json(read_regular(_record(seal))), Recipe)
    except (OSError, RuntimeError, ValueError):
        pass
    if told := paths_in(recipe.to_dict()):
        raise EngineError(f"the recipe of {name} names a file of a machine: '{told[0][2]}'", remedy="Build the engine again")
    return recipe


def is_here(spec: str | None) -> bool:
    """Whether a path in an engine's recipe can be looked for: it is packaged, or absolute, and so of this machine."""
    return spec is not None and (has_word(spec) or Path(spec).is_absolute())


def require_reference(recipe: Recipe) -> None:
    """Raise DataError where the reference of an engine's recipe is not on this machine.

    A checkpoint that has to be downloaded is not: an engine may be a stranger's, and asks for nothing over the network.
    """
    reference = recipe.reference
    spec = reference.onnx or reference.weights or ""
    if not is_here(spec):
        raise DataError(f"'{spec}' is not on this machine")
    kind, _, tag = spec.partition(":")
    if kind == "torchvision":
        from toolkit.reference.published import is_kept

        if not is_kept(reference.arch or "", tag):
            what = f"'{spec}' is not in this machine's cache, and nothing is downloaded for the recipe inside an engine"
            raise DataError(what, remedy="Export a recipe of your own that names it: toolkit export RECIPE")


def portable(recipe: Recipe) -> dict[str, Any]:
    """A recipe's plain values with paths relative to the folder that all of them share; where they share none, their names."""
    card, shared = recipe.to_dict(), _shared(recipe)
    if recipe.notes:
        card["notes"] = [placeless(note, recipe) for note in recipe.notes]
    return with_paths(card, lambda path: os.path.relpath(path, shared) if shared else os.path.basename(path))


def placeless(text: str, recipe: Recipe) -> str:
    """A sentence about the files of `recipe`, with their paths as `portable` has them."""
    shared = _shared(recipe)
    folders = {shared} if shared else {os.path.dirname(path) for _, _, path in paths_in(recipe.to_dict())}
    for folder in sorted(folders - {os.sep}, key=len, reverse=True):
        text = text.replace(os.path.join(folder, ""), "")
    return text


def _shared(recipe: Recipe) -> str:
    """The folder that a recipe's paths share, and that each lies below; empty where they share none."""
    paths = [path for _, _, path in paths_in(recipe.to_dict())]
    shared = os.path.commonpath(paths) if paths else ""
    if paths and (shared in paths or len(Path(shared).parts) < 3):
        shared = "" if len(set(paths)) > 1 and shared not in paths else os.path.dirname(shared)
    return shared


def _record(seal: str) -> Path:
    if re.fullmatch("[0-9a-f]{64}", seal) is None:
        raise OSError(f"no seal: {seal!r:.80}")
    return cache_folder() / "built" / f"{seal}.json"
