"""Flags: a recipe's keys given by name, without their tables -> the tables. `size=(32, 32)` means `[preprocess] size`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from toolkit.errors import RecipeError
from toolkit.recipe.modules import MEMORY, hold, is_module

TABLES = ("reference", "preprocess", "precision", "build")  # whose keys stand for themselves; a dict of them does as well
DATA = ("calibration", "accept")  # tables of images: a path stands for their `data`
HIDDEN = ("onnx", "weights")  # of [reference], which the model itself says; [precision] weights has to stand in its table
_SPEC = r"(packaged|torchvision|random):"


def tables(model: Any, options: Mapping[str, Any], kinds: Mapping[str, type[msgspec.Struct]]) -> dict[str, Any]:
    """`model` (a module, an ONNX file, or weights beside `arch`) and flags -> plain values as a recipe's TOML holds them.

    `kinds` are the structs of a recipe's tables, by name. Raises RecipeError, which names the options that exist.
    """
    homes = {field: table for table in reversed(TABLES) for field in _fields(kinds[table])}
    found: dict[str, Any] = {"reference": {}}
    for name, value in options.items():
        if value is None:
            continue
        if name in kinds:
            found.setdefault(name, {}).update(_table(name, value, kinds[name]))
        elif name in ("name", "notes"):
            found[name] = plain(value)
        elif name in homes and name not in HIDDEN:
            found.setdefault(homes[name], {})[name] = plain(value)
        else:
            raise _unknown(name, homes)
    found["reference"] |= _reference(model, found["reference"])
    found.setdefault("name", _name(model, found))
    return found


def plain(value: Any) -> Any:
    """Paths as text, tuples as lists: what TOML has."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.encode_name for field in msgspec.structs.fields(kind))


def _table(name: str, value: Any, kind: type[msgspec.Struct]) -> dict[str, Any]:
    if name in TABLES and not isinstance(value, Mapping):
        raise RecipeError(f"`{name}` is a table, not {value!r}", remedy=f"Give a dict of {', '.join(_fields(kind))}")
    given = plain(value) if isinstance(value, Mapping) else {"data": str(value)}
    for key in given:
        if key not in _fields(kind):
            raise RecipeError(f"`{name}` has no key '{key}'", remedy=f"It has {', '.join(_fields(kind))}")
    return given


def _unknown(name: str, homes: Mapping[str, str]) -> RecipeError:
    known = sorted({*homes, *DATA, "name", "notes"} - set(HIDDEN))
    near = difflib.get_close_matches(name, known, 1)
    hint = f"Did you mean {near[0]}? " if near else ""
    remedy = f"{hint}There are {', '.join(known)}; and keys of tables, such as accept.min_agreement"
    return RecipeError(f"there is no option '{name}'", remedy=remedy)


def _reference(model: Any, given: Mapping[str, Any]) -> dict[str, str]:
    """What `[reference]` says of the model itself."""
    if is_module(model):
        if "arch" in given:
            raise RecipeError("`arch` is for a file of weights; a module is its own architecture", remedy="Leave it out")
        return {"weights": hold(model)}
    if not isinstance(model, (str, os.PathLike)):
        what = f"{type(model).__name__} is not a reference"
        raise RecipeError(what, remedy="Give a torch.nn.Module, the path of an ONNX file, or of weights with `arch`")
    text = os.fspath(model)
    if text.lower().endswith(".onnx"):
        if "arch" in given:
            raise RecipeError(f"`arch` is for a file of weights; {text} carries its network", remedy="Leave it out")
        return {"onnx": text}
    if "arch" not in given:
        raise RecipeError(f"{text} holds weights, but not which network they belong to", remedy="Say `arch`, such as resnet50")
    return {"weights": text}


def is_made_up(recipe: Mapping[str, Any]) -> bool:
    """Whether the name in a recipe's plain values is what `tables` would call it, and no name that a person gave."""
    reference = recipe["reference"]
    model = reference.get("onnx") or reference["weights"]
    return bool(not model.startswith(MEMORY) and recipe["name"] == _name(model, recipe))


def _name(model: Any, found: Mapping[str, Any]) -> str:
    """`resnet50-int8`: after the file or the module's class, and the precision."""
    text = type(model).__name__.lower() if is_module(model) else os.fspath(model)
    stem = text.partition(":")[2] if re.match(_SPEC, text) else Path(text).stem
    precision = found.get("precision", {})
    kind = next((kind for kind in ("int8", "fp8") if precision.get(kind)), precision.get("compute", "fp32"))
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")
    arch = found["reference"].get("arch")
    prefix = f"{arch}-" if re.match(r"(torchvision|random):", text) else ""
    return f"{prefix}{clean or 'model'}-{kind}"
