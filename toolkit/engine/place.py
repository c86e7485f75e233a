"""Place: what a build may replace. An engine makes way for the next one of its model; a person's files do not, and an engine of
another model only with a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from toolkit.disk.files import decode_json, read_regular
from toolkit.disk.folders import NEXT, contents, refuse_foreign
from toolkit.engine import layout, locations
from toolkit.errors import EngineError
from toolkit.manifest import LIMIT, MANIFEST, SIGNATURE, Manifest
from toolkit.recipe import Recipe

# All that any version of the toolkit has laid into an engine's folder, and what file browsers leave anywhere.
KNOWN = {
    *(MANIFEST, SIGNATURE, layout.GRAPH, layout.RANGES, layout.LAYERS, layout.ANSWERS, layout.VERDICT, NEXT),
    *("model.onnx", "engine.plan", "engine.onnx", "weights.onnx", ".DS_Store", "Thumbs.db", "desktop.ini"),
}


def refuse_other(path: Path) -> None:
    """Raise EngineError where `path` is there and is no engine, or an engine with something beside it.

    A damaged engine is one as well: building it again is how it is repaired.
    """
    refuse_foreign(path, MANIFEST)
    names = set(contents(path)) if path.is_dir() else set[str]()
    files: object = {}
    try:
        card = decode_json(read_regular(path / MANIFEST, LIMIT)) if MANIFEST in names else {"target": "", "file": ""}
        if not (isinstance(card, dict) and {"target", "file"} <= card.keys()):
            what = f"{path} holds a {MANIFEST} of another program: it is not replaced"
            raise EngineError(what, remedy="Move it away, or choose another folder with -o")
        files = card.get("files")
    except (OSError, ValueError):
        pass
    strange = sorted(names - KNOWN - set(files if isinstance(files, dict) else ()))
    if strange:
        what = f"{path} holds {strange[0]}, which is not part of an engine: it is not replaced"
        raise EngineError(what, remedy="Move that away, or choose another folder with -o")


def other_model(path: Path, recipe: Recipe, weights: Callable[[], str]) -> str | None:
    """What the engine at `path` was built from, where that is another model than the recipe's: neither the same file nor the same
    weights (`weights` gives their hash, as the manifest keeps it). None where none stands there, or it is of the same model."""
    try:
        manifest = Manifest.read(path)
        old = locations.recipe_of(manifest.recipe, manifest.seal, manifest.name).reference
    except EngineError:
        return None
    was, now = (one.onnx or one.weights or "" for one in (old, recipe.reference))
    return None if was == now or manifest.hashes.get("weights") == weights() else was
