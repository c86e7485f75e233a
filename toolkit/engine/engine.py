"""Engine: a folder with a compiled file and its manifest. Loading one picks the backend by the manifest's target."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from toolkit.backends import backend
from toolkit.backends.settings import checked
from toolkit.cpu import cores
from toolkit.manifest import Manifest
from toolkit.runtime.runner import Runner
from toolkit.types import ON_CPU


def load(path: str | Path, *, check_finite: bool = False, **options: Any) -> Runner:
    """A live Runner of the engine folder at `path`. `options` go to the backend: `threads` for ONNX Runtime on the CPU.

    With `check_finite` it refuses inputs that hold NaN or infinity.

    The runner's own manifest says what it runs with. Everything that the manifest can tell is checked before a library touches
    the compiled file. Raises EngineError (no engine, damaged, foreign), BackendError (a library or provider is not there),
    DeviceError (no fitting GPU).
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    module = backend(manifest.to_target())
    checked(manifest.settings, module.SETTINGS, f"the settings of {manifest.name}")
    checked(options, module.OPTIONS, f"the options to load {manifest.name} with")
    open_again = partial(module.open, folder, manifest, **options)
    threads = options.get("threads") or manifest.settings.get("threads")
    if manifest.target in ON_CPU and isinstance(threads, int) and threads > cores():
        what = f"{manifest.name} runs on {threads} threads, this process may use {cores()} core(s): they will wait for each other"
        warnings.warn(f"{what}. Load it with threads={cores()}, or build it here", RuntimeWarning, stacklevel=2)
    if options.get("threads"):
        manifest = msgspec.structs.replace(manifest, settings={**manifest.settings, "threads": options["threads"]})
    return Runner(manifest, open_again(), open_again, check_finite=check_finite)
