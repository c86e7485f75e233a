"""Engines to hand off: copies of one under other manifests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toolkit.engine.engine import Engine
from toolkit.manifest import Manifest


@pytest.fixture
def remade(golden: Engine, tmp_path: Path) -> Callable[..., Engine]:
    """The same engine with another manifest, in a folder of its own."""

    def make(**changes: Any) -> Engine:
        folder = tmp_path / f"engine-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(golden.path, folder)
        msgspec.structs.replace(Manifest.read(folder), **changes).write(folder)
        return Engine.open(folder)

    return make
