"""Engine: a folder with a compiled file and its manifest. Loading one picks the backend by the manifest's target."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from toolkit.manifest import Manifest
from toolkit.runtime.runner import Runner
from toolkit.types import Target

BACKENDS = {"cpu": "onnxruntime", "openvino": "openvino", "cuda": "onnxruntime", "tensorrt": "tensorrt", "rtx": "tensorrt"}


def load(path: str | Path, **options: Any) -> Runner:
    """A live Runner of the engine folder at `path`. `options` go to the backend: `threads` for ONNX Runtime on the CPU.

    The runner's own manifest says what it runs with. Everything that the manifest can tell is checked before a library touches
    the compiled file. Raises EngineError (no engine, damaged, foreign), BackendError (a library or provider is not there),
    DeviceError (no fitting GPU).
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    open_again = partial(backend(manifest.to_target()).open, folder, manifest, **options)
    if options.get("threads"):
        manifest = msgspec.structs.replace(manifest, settings={**manifest.settings, "threads": options["threads"]})
    return Runner(manifest, open_again(), open_again)


def backend(target: Target) -> Any:
    """The backend's module: `compile(graph, build, target, folder)` and `open(folder, manifest)`."""
    return import_module(f"toolkit.backends.{BACKENDS[target.kind]}")
