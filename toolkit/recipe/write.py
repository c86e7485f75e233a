"""A recipe as TOML, the shortest that says it."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from toolkit.recipe.paths import with_paths
from toolkit.recipe.recipe import Recipe


def recipe_toml(recipe: Recipe, folder: Path) -> str:
    """A recipe as TOML, to be written into `folder`: paths become relative to it. It names its target, and of a model's file what
    was said of its pictures, default or not; what was assumed is left away, to be assumed again, and told, when it is read."""
    values = recipe.to_dict()
    assumed = values.pop("assumed", ())
    if recipe.reference.onnx is not None or recipe.assumed:
        whole = msgspec.to_builtins(recipe.preprocess)
        said = {key: whole[key] for key in ("size", "color", "scale", "mean", "std") if key not in assumed}
        values["preprocess"] = said | {key: v for key, v in values.get("preprocess", {}).items() if key not in assumed}
    values["build"] = {"target": recipe.build.target, **values.get("build", {})}
    return "\n".join(_lines(with_paths(values, lambda path: os.path.relpath(path, folder)), ())) + "\n"


def _lines(table: dict[str, Any], where: tuple[str, ...]) -> list[str]:
    """TOML, a table under its header after the plain keys. JSON writes strings, numbers and arrays just as TOML does."""
    lines = [f"{_key(key)} = {_value(item)}" for key, item in table.items() if not isinstance(item, dict)]
    for key, item in table.items():
        if item and isinstance(item, dict):  # an empty table says nothing
            inner = (*where, _key(key))
            lines += ["", f"[{'.'.join(inner)}]", *_lines(item, inner)]
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(item: Any) -> str:
    if isinstance(item, (list, tuple)):
        return f"[{', '.join(_value(part) for part in item)}]"
    if item == math.inf:  # of a budget that allows anything; JSON has no such number
        return "inf"
    return msgspec.json.encode(item).decode().replace("\x7f", "\\u007f")  # the one character that JSON leaves and TOML does not
