"""The paths of a recipe: against the folder of its file, or with a word in front that says where else to look."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.errors import RecipeError

PATHS = {"reference": ("weights", "onnx", "classes"), "calibration": ("data", "ranges"), "accept": ("data",)}  # tables, and keys


def paths_in(values: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Table, key and value of each absolute path in a recipe's plain values. Names of tensors are none: PyTorch's begin with a
    slash as well."""
    found = ((table, key, values.get(table, {}).get(key)) for table, keys in PATHS.items() for key in keys)
    return [(table, key, path) for table, key, path in found if path is not None and os.path.isabs(path)]


def with_paths(values: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A recipe's plain values, each absolute path in them changed."""
    made = dict(values)
    for table, key, path in paths_in(values):
        made[table] = {**made[table], key: change(path)}
    return made


def has_word(value: str) -> bool:
    """Whether `value` is no path, as a word stands in front of it."""
    return re.match(r"(packaged|torchvision|random|memory):", value) is not None


def absolute(value: str | None, folder: Path) -> Any:
    """`value` made absolute against `folder`, `~` expanded. Raises RecipeError for what can be no path here."""
    if value is None or has_word(value):
        return value
    if "\0" in value:
        raise RecipeError(f"a path cannot hold a NUL character: {value!r:.200}")
    try:
        path = str((folder / Path(value).expanduser()).absolute())
        path.encode()
        return path
    except UnicodeEncodeError:  # Linux takes any bytes for a name
        what = f"{path!r:.200} cannot stand in a recipe, which is UTF-8 text"
        raise RecipeError(what, remedy="Rename the folder or file") from None
    except RuntimeError:  # ~name of nobody here, or `~` of a user without a home
        raise RecipeError(f"{value!r:.200} names a home folder that is not here", remedy="Write the whole path") from None
