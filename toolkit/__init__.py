"""A PyTorch ResNet, or any ONNX image classifier, becomes measured FP16 and INT8 engines; this package also runs them.

    import toolkit

    engines = toolkit.build("mine.toml")
    print(engines[0].judge())
    with toolkit.load("engines/built/mine") as runner:
        logits = runner(batch)

Importing it imports numpy only; each name below brings what it needs when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # this file comes before all others, and `typing` takes longer to import than the rest of it
if TYPE_CHECKING:
    from typing import Any

    from toolkit.api import bench, build, export, judge, parity, table, tune
    from toolkit.engine.engine import Engine, load
    from toolkit.errors import ToolkitError
    from toolkit.manifest import Manifest
    from toolkit.recipe import Recipe
    from toolkit.runtime.runner import Prediction, Runner

__version__ = "0.2.0"
__all__ = [
    "Engine", "Manifest", "Prediction", "Recipe", "Runner", "ToolkitError", "bench", "build", "export", "judge", "load", "parity",
    "table", "tune",
]  # fmt: skip

_HOMES = {
    "Engine": "engine.engine",
    "Manifest": "manifest",
    "Prediction": "runtime.runner",
    "Recipe": "recipe",
    "Runner": "runtime.runner",
    "ToolkitError": "errors",
    "load": "engine.engine",
    **dict.fromkeys(("bench", "build", "export", "judge", "parity", "table", "tune"), "api"),
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "ray":  # a room of its own: toolkit.ray.classify
        from importlib import import_module

        return import_module("toolkit.ray")
    if name not in _HOMES:
        raise AttributeError(f"module 'toolkit' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"toolkit.{_HOMES[name]}"), name)
