"""OpenVINO: `openvino`, an optional target for CPUs on which its kernels are faster. The compiled file is the ONNX graph.

It reads the same Q/DQ graph of the `cpu` target and fuses it as it does its own quantizer's.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from toolkit.backends.onnxruntime.backend import refuse_foreign_options
from toolkit.backends.settings import CpuOptions, OpenVinoSettings, checked
from toolkit.cpu import cores
from toolkit.disk.files import sha256_bytes, write_atomically
from toolkit.errors import BackendError, ClosedError, EngineError, MissingExtra
from toolkit.manifest import Manifest
from toolkit.onnxfile import serialize
from toolkit.recipe import Build
from toolkit.runtime.foreign import warn_of_cpu
from toolkit.types import Array, Compiled, Contents, Float, Target

if TYPE_CHECKING:
    import onnx_ir as ir

FILE = "model.onnx"
SETTINGS, OPTIONS = OpenVinoSettings, CpuOptions


def check(build: Build, target: Target) -> None:
    """Raise what `compile` would raise for want of the library or an option, before there is any graph."""
    refuse_foreign_options(build, target)
    if build.spin is not None:
        raise BackendError("`build.spin` is an option of ONNX Runtime; OpenVINO has none", remedy="Remove it, or build for cpu")
    _library()


def compile(graph: ir.Model, build: Build, target: Target, folder: Path) -> Compiled:
    """Write the graph into `folder` and compile it once, so that a graph which cannot run is refused now. Raises BackendError."""
    check(build, target)
    library = _library()
    data = serialize(graph)
    settings: dict[str, Any] = {"threads": build.threads or cores()}
    live = _compiled(data, settings)
    write_atomically(folder / FILE, data)
    return Compiled(
        file=FILE,
        device=str(library.Core().get_property("CPU", "FULL_DEVICE_NAME")).strip(),
        versions={"openvino": library.__version__},
        settings={**settings, "precision_hint": "f32", "streams": int(live.get_property("NUM_STREAMS"))},
        hashes={"onnx": sha256_bytes(data)},
    )


def open(source: Contents, manifest: Manifest, threads: int | None = None) -> OpenVinoExecutor:
    """A live compiled model of the engine whose files are in `source`; `threads` overrides the manifest.

    Raises BackendError, EngineError.
    """
    warn_of_cpu(manifest)
    settings = msgspec.to_builtins(checked(manifest.settings, SETTINGS, f"the settings of {manifest.name}"))
    if threads is not None:
        settings["threads"] = threads
    return OpenVinoExecutor(_compiled(manifest.compiled(source), settings))


class OpenVinoExecutor:
    """Runs one compiled model: any batch, and an inference request for each thread that calls."""

    max_batch: int | None = None

    def __init__(self, live: Any) -> None:
        self._live: Any = live
        self._own = threading.local()

    def run(self, batch: Array) -> Float:
        live = self._live
        if live is None:
            raise ClosedError("this model is closed", remedy="Load the engine again")
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = live.create_infer_request()
        try:
            # the input is read in place; the answer is a copy, as the request writes its next one to the same memory
            logits: Float = request.infer([batch], share_inputs=True, share_outputs=False)[0]
        except Exception as error:  # OpenVINO raises RuntimeError and its own classes
            raise BackendError(f"OpenVINO failed on a batch of {len(batch)}: {error}") from error
        return logits

    def close(self) -> None:
        self._live = None
        self._own = threading.local()


def _compiled(model: bytes, settings: dict[str, Any]) -> Any:
    """One stream, for latency. FP32 stays FP32: left alone, OpenVINO would compute in BF16 where the CPU has it."""
    core = _library().Core()
    hints = {"INFERENCE_NUM_THREADS": int(settings["threads"]), "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        return core.compile_model(core.read_model(model), "CPU", hints)
    except Exception as error:
        raise EngineError(f"OpenVINO cannot load this graph: {str(error).strip()}") from error


def _library() -> ModuleType:
    try:
        import openvino
    except ImportError:
        raise MissingExtra("openvino", "openvino") from None
    return openvino  # type: ignore[no-any-return]
