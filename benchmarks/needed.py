"""The engines that a script measures, built from their recipes where they are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit import orders
from toolkit.manifest import MANIFEST
from toolkit.recipe import Recipe

RECIPES = Path(__file__).parent.parent / "engines"


def need(built: Path, names: Sequence[str]) -> None:
    """Build what is missing in the folder `built`."""
    missing = [Recipe.load(RECIPES / f"{name}.toml") for name in names if not (built / name / MANIFEST).is_file()]
    for folder, _ in orders.build_all(missing, None, built, proof=False):
        print(f"built {folder}")
