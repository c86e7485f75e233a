"""Engine: a folder with a compiled file and its manifest. Loading one picks the backend by the manifest's target."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from toolkit.manifest import Manifest
from toolkit.runtime.runner import Runner
from toolkit.types import Target

BACKENDS = {"cpu": "onnxruntime", "openvino": "openvino", "cuda": "onnxruntime", "tensorrt": "tensorrt", "rtx": "tensorrt"}


def load(path: str | Path, **options: Any) -> Runner:
    """A live Runner of the engine folder at `path`. `options` go to the backend: `threads` for ONNX Runtime on the CPU.

    Everything that the manifest can tell is checked before a library touches the compiled file. Raises EngineError (no
    engine, damaged, foreign), BackendError (a library or provider is not there), DeviceError (no fitting GPU).
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    executor = backend(manifest.to_target()).open(folder, manifest, **options)
    return Runner(manifest, executor)


def backend(target: Target) -> Any:
    """The backend's module: `compile(graph, build, target, folder)` and `open(folder, manifest)`."""
    return import_module(f"toolkit.backends.{BACKENDS[target.kind]}")
