"""What a script needs: engines, built from their recipes where they are not there yet; modules of `research`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from toolkit import orders
from toolkit.manifest import MANIFEST
from toolkit.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "engines"


def need(built: Path, names: Sequence[str]) -> None:
    """Build what is missing in the folder `built`."""
    missing = [Recipe.load(RECIPES / f"{name}.toml") for name in names if not (built / name / MANIFEST).is_file()]
    for folder, _ in orders.build_all(missing, None, built, proof=False):
        print(f"built {folder}")


def research(name: str) -> ModuleType:
    """`research.NAME`, which lies beside the benchmarks and not on a script's path."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module(f"research.{name}")
