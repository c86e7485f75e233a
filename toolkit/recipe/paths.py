"""The paths of a recipe: against the folder of its file, or with a word in front that says where else to look."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from toolkit.errors import RecipeError


def absolute(value: str | None, folder: Path) -> Any:
    """`value` made absolute against `folder`, `~` expanded. Raises RecipeError for what can be no path here."""
    if value is None or re.match(r"(packaged|torchvision|random|memory):", value):
        return value
    if "\0" in value:
        raise RecipeError(f"a path cannot hold a NUL character: {value!r:.200}")
    try:
        return str((folder / Path(value).expanduser()).absolute())
    except RuntimeError:  # ~name of nobody here, or `~` of a user without a home
        raise RecipeError(f"{value!r:.200} names a home folder that is not here", remedy="Write the whole path") from None
