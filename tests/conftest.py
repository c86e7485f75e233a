"""What several rooms' tests share."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.shared import made_once, untraced
from tests.warm import Opener

if TYPE_CHECKING:
    from toolkit.engine.engine import Engine
    from toolkit.harness.roofline import Peaks

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


@pytest.fixture(autouse=True, scope="session")
def usual_sittings() -> Iterator[Mapping[str, Any]]:
    """Each build for the CPU times one thread against several, for up to six seconds. Here it takes a moment: which one is
    faster matters to no test but to those of the rule, which take the usual lengths from this fixture."""
    from toolkit.backends.onnxruntime import settings

    short = {"ROUNDS": 2, "SECONDS": 0.005, "SITTINGS": 1, "PAUSE": 0.0}
    usual = {name: getattr(settings, name) for name in short}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in short.items():
            patch.setattr(settings, name, value)
        yield usual


@pytest.fixture(autouse=True, scope="session")
def peaks_once() -> Iterator[None]:
    """The machine's peaks take seconds; they are measured once, not again in each bench."""
    from toolkit import insight
    from toolkit.harness import roofline

    measured: dict[tuple[int, tuple[str, ...]], Peaks] = {}

    def once(threads: int, gemms: dict[str, Callable[[], int]] | None = None) -> Peaks:
        key = threads, tuple(sorted(gemms or ()))
        if key not in measured:
            measured[key] = roofline.measure_peaks(threads, gemms)
        return measured[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "REPEATS", 1)
        patch.setattr(insight, "measure_peaks", once)
        yield


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A folder that all workers of this run share, and no other run."""
    base = tmp_path_factory.getbasetemp()  # of a worker: a folder in that of the run
    folder = (base.parent if hasattr(pytestconfig, "workerinput") else base) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True, scope="session")
def exports_once(common: Path) -> Iterator[Callable[[Any, Any], Any]]:
    """torch takes seconds for each export, and many tests begin with that of the same ResNet: a run makes it once.

    What tells one of our networks from another is what tells it in `toolkit.reference.exports`; a test's own module is always
    exported. The value is torch's way, for the tests of the export itself.
    """
    import onnx_ir as ir
    import torch

    from toolkit.graph import export
    from toolkit.recipe.modules import digest
    from toolkit.reference.resnet import ResNet

    usual = export._quietly_export

    def quietly(model: torch.nn.Module, example: torch.Tensor) -> Any:
        with untraced():
            return usual(model, example)

    def once(model: torch.nn.Module, example: torch.Tensor) -> Any:
        if type(model) is not ResNet:
            return quietly(model, example)
        key = hashlib.sha256(f"{model!r} {digest(model)} {list(example.shape)}".encode()).hexdigest()[:24]
        kept = made_once(common / f"{key}.onnx", lambda path: ir.save(quietly(model, example).model, path))
        return SimpleNamespace(model=ir.load(kept))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_quietly_export", once)
        yield usual


@pytest.fixture(autouse=True, scope="session")
def opened_by_forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, float], tuple[int | None, str]]]:
    """An ONNX file is opened by a fork of a process that is ready for it (`warm.py`). The value is the toolkit's own way, for
    the tests of the child."""
    from toolkit.graph.load import apart

    usual = apart._run
    opener = Opener(tmp_path_factory.mktemp("warm") / "socket", apart.STEADY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "_run", opener.run)
        yield usual
    opener.close()


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
