"""Engines to hand off: one of another time, upgraded to today's format, and copies of it under other manifests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toolkit.engine.engine import Engine
from toolkit.engine.upgrade import upgrade
from toolkit.manifest import Manifest

GOLDEN = Path(__file__).parents[1] / "engine" / "golden"


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """fashion-resnet18-int8 for the CPU, ten classes, batches of 1 to 32."""
    folder = tmp_path_factory.mktemp("golden") / "engine"
    shutil.copytree(GOLDEN / "version-1", folder)
    upgrade(folder)
    return Engine.open(folder)


@pytest.fixture
def remade(golden: Engine, tmp_path: Path) -> Callable[..., Engine]:
    """The same engine with another manifest, in a folder of its own."""

    def make(**changes: Any) -> Engine:
        folder = tmp_path / f"engine-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(golden.path, folder)
        msgspec.structs.replace(Manifest.read(folder), **changes).write(folder)
        return Engine.open(folder)

    return make
