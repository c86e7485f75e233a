"""TensorRT 11, TensorRT 10.13+ and TensorRT-RTX: one strongly typed path. What the graph says is what is compiled.

`compile` needs no GPU for `rtx` or `rtx:sm89`: TensorRT-RTX builds for SMs that are not there. TensorRT itself times
kernels on the GPU that it builds for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.backends.settings import PlanOptions, PlanSettings, checked
from toolkit.backends.tensorrt import library as libraries
from toolkit.backends.tensorrt.apart import build_apart
from toolkit.backends.tensorrt.build import build_plan
from toolkit.backends.tensorrt.layers import describe_quantized, inspect
from toolkit.backends.tensorrt.library import Library
from toolkit.backends.tensorrt.options import refuse_options, refuse_types, settings_of
from toolkit.disk import cache
from toolkit.disk.files import sha256, sha256_bytes, write_atomically
from toolkit.manifest import Manifest
from toolkit.onnxfile import serialize
from toolkit.recipe import Build
from toolkit.runtime.device import Device, best, current
from toolkit.runtime.foreign import refuse_foreign
from toolkit.runtime.tensorrt import TensorRTExecutor
from toolkit.types import Compiled, Contents, Target

if TYPE_CHECKING:
    import onnx_ir as ir

PLAN = "engine.plan"
SETTINGS, OPTIONS = PlanSettings, PlanOptions
LAYERS = "layers.json"
WEIGHTS = "weights.onnx"  # beside a plan without weights: what `open` fills it from


def check(build: Build, target: Target) -> None:
    """Raise what `compile` would raise for want of a library, an option, an SM or a GPU, before there is any graph."""
    library = libraries.load(target.kind)
    refuse_options(library, build)
    if library.kind == "rtx":
        libraries.require_architectures(library, target)
    else:
        best().close()


def compile(graph: ir.Model, build: Build, target: Target, folder: Path) -> Compiled:
    """Compile `graph` for every profile of `build` into `folder`: the plan, and the report of its layers.

    Raises MissingExtra or BackendError for a library or an option that is not there, GraphError for a node that the library
    refuses (it names the node), DeviceError where the target needs a GPU that is absent or out of memory.
    """
    library = libraries.load(target.kind)
    refuse_options(library, build)
    data = serialize(graph)
    with _gpu(library) as device:
        sms = [device.sm] if device else list(libraries.require_architectures(library, target))
        refuse_types(library, graph, sms)
        built = build_plan(library, data, build, target, device) if device else build_apart(library, data, build, target)
        report = inspect(library, built.plan) if device else None
    write_atomically(folder / PLAN, built.plan)
    source = {"library": f"{library.name} {library.version}", "source": "inspector" if report else "build log"}
    write_atomically(folder / LAYERS, json.dumps(source | {"layers": report or built.layers}, indent=1).encode() + b"\n")
    hashes = {} if built.timing_cache is None else {"timing_cache": sha256(Path(built.timing_cache))}
    if build.strip_weights:
        write_atomically(folder / WEIGHTS, data)
        hashes["stripped_weights"] = sha256_bytes(data)
    named = ", ".join(f"sm{sm}" for sm in sms)
    return Compiled(
        file=PLAN,
        device=f"any GPU of {named}, built without one" if device is None else f"{device.name} ({named})",
        versions={library.package: library.version},
        settings=settings_of(build, sms),
        hashes=hashes,
        notes=(*built.notes, *describe_quantized(graph, built.layers)),
    )


def open(source: Contents, manifest: Manifest, *, device: Device | None = None, **options: Any) -> TensorRTExecutor:
    """The engine whose files `source` holds, live on `device` (absent: the GPU of the current CUDA context, or else the first).

    `options` go to the TensorRTExecutor: `contexts`, `graphs`, `jit_cache`. The file's hash, then library, version and GPU are
    compared with the manifest before the library sees the file. Raises EngineError, BackendError, DeviceError.
    """
    checked(manifest.settings, SETTINGS, f"the settings of {manifest.name}")
    plan = manifest.compiled(source)
    library = libraries.load(manifest.to_target().kind)
    refuse_foreign(manifest, library.trt)  # a foreign engine is one on a machine without a GPU too
    log = libraries.log_of(library.trt)
    if manifest.settings.get("strip_weights"):
        options["refit"] = partial(_refit, library, manifest.member(source, WEIGHTS, manifest.hashes.get("stripped_weights")))
    if library.kind == "rtx":
        options.setdefault("jit_cache", _kernels(library, manifest))
    return TensorRTExecutor(
        library.trt,
        best() if device is None else device,
        plan,
        manifest,
        logger=log.handle,
        said=lambda: libraries.errors_of(list(log.recent)),
        **options,
    )


@contextmanager
def _gpu(library: Library) -> Iterator[Device | None]:
    """The GPU that TensorRT builds on, current inside the block; None for TensorRT-RTX, which needs none."""
    if library.kind == "rtx":
        yield None
        return
    with closing(best()) as device, current(device):
        yield device


def _kernels(library: Library, manifest: Manifest) -> Path | None:
    """Where TensorRT-RTX keeps what it compiles on this machine; None where there is no such place."""
    with suppress(OSError):
        return cache.place("kernels", f"{library.package}-{library.version}-{manifest.hashes['file'][:24]}.bin")
    return None


def _refit(library: Library, weights: bytes, engine: Any) -> None:
    """Put the weights back into an engine that was built without them."""
    trt, log = library.trt, libraries.log_of(library.trt)
    with log.listen() as heard:
        refitter = trt.Refitter(engine, log.handle)
        reader = trt.OnnxParserRefitter(refitter, log.handle)
        if not reader.refit_from_bytes(weights) or not refitter.refit_cuda_engine():
            raise libraries.explain(library, "the stripped weights cannot be put back", heard)
