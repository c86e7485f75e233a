"""What several rooms' tests share."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from toolkit.engine.engine import Engine

GOLDEN = Path(__file__).parent / "engine" / "golden"

# The time that one example takes decides nothing: workers share cores, and coverage slows Python down.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# Two workers on two cores: one thread each, and none that spins. It must stand before torch is first imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for tests that import ONNX Runtime themselves


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that an earlier run kept may make a test pass, and none writes among the user's own."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """fashion-resnet18-int8 for the CPU, ten classes, batches of 1 to 32: of another time, upgraded to today's format."""
    from toolkit.engine.engine import Engine
    from toolkit.engine.upgrade import upgrade

    folder = tmp_path_factory.mktemp("golden") / "engine"
    shutil.copytree(GOLDEN / "version-1", folder)
    upgrade(folder)
    return Engine.open(folder)


@pytest.fixture(scope="session")
def torchvision() -> Iterator[ModuleType]:
    """torchvision, to be compared with; skips where it is absent.

    Beside a torch of another build (a CPU build of torch, a CUDA build of torchvision) its compiled operators do not load and
    its import fails on their declarations. The models and the Pillow transforms need none of them, so bare declarations serve.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchvision is not installed")
    import torch

    library = None
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        source = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
        library = torch.library.Library("torchvision", "DEF")
        for name in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', source)):
            library.define(f"{name}(Tensor x) -> Tensor")
        import torchvision
    yield torchvision
    del library
