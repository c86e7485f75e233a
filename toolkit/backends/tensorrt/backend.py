"""TensorRT 11, TensorRT 10.13+ and TensorRT-RTX: one strongly typed path. What the graph says is what is compiled.

`compile` needs no GPU for `rtx` or `rtx:sm89`: TensorRT-RTX builds for SMs that are not there. TensorRT itself times
kernels on the GPU that it builds for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from toolkit.backends.settings import PlanOptions, PlanSettings, checked
from toolkit.backends.tensorrt import library as libraries
from toolkit.backends.tensorrt.apart import build_apart
from toolkit.backends.tensorrt.build import Built, build_plan
from toolkit.backends.tensorrt.layers import describe_quantized, inspect
from toolkit.backends.tensorrt.library import Library
from toolkit.backends.tensorrt.options import refuse_options, refuse_types, settings_of
from toolkit.backends.tensorrt.refit import OWN_ALONE, caveat, exchange, fill
from toolkit.disk import cache
from toolkit.disk.files import sha256, sha256_bytes, write_atomically
from toolkit.errors import EngineError
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
    return _written(library, graph, build, (built, report), folder, device, sms)


def refit(
    graph: ir.Model, changed: Collection[str], source: Contents, manifest: Manifest, build: Build, folder: Path
) -> Compiled:
    """As `compile`, out of the plan of the engine that `source` holds: its graph differs from `graph` in the constants `changed`.

    Raises EngineError where its plan takes no weights but its own or is for another library, version or GPU; BackendError, which
    names them, where constants that change are baked in, and for a library that cannot refit.
    """
    library = libraries.load(manifest.to_target().kind)
    refuse_options(library, msgspec.structs.replace(build, refit=True))
    if not manifest.settings.get("refit"):  # a plan that was stripped alone is tuned to its weights: others are undefined there
        remedy = "Set `build.refit`, and build it once without --refit"
        raise EngineError(f"{manifest.name} was built without `build.refit`: {OWN_ALONE}", remedy=remedy)
    with _gpu(library) as device:
        assert device is not None  # TensorRT-RTX has been refused
        refuse_foreign(manifest, library.trt, device)
        plan = exchange(library, manifest.compiled(source), serialize(graph), changed, manifest)
        built = Built(plan=plan, notes=(), layers=[])
        return _written(library, graph, build, (built, inspect(library, plan)), folder, device, [device.sm])


def _written(
    library: Library,
    graph: ir.Model,
    build: Build,
    made: tuple[Built, list[dict[str, Any]] | None],
    folder: Path,
    device: Device | None,
    sms: list[int],
) -> Compiled:
    """Lay the plan, the report of its layers and, where it has none in it, the weights into `folder`."""
    built, report = made
    write_atomically(folder / PLAN, built.plan)
    source = {"library": f"{library.name} {library.version}", "source": "inspector" if report else "build log"}
    write_atomically(folder / LAYERS, json.dumps(source | {"layers": report or built.layers}, indent=1).encode() + b"\n")
    hashes = {} if built.timing_cache is None else {"timing_cache": sha256(Path(built.timing_cache))}
    if build.strip_weights:
        data = serialize(graph)
        write_atomically(folder / WEIGHTS, data)
        hashes["stripped_weights"] = sha256_bytes(data)
    named = ", ".join(f"sm{sm}" for sm in sms)
    return Compiled(
        file=PLAN,
        device=f"any GPU of {named}, built without one" if device is None else f"{device.name} ({named})",
        versions={library.package: library.version},
        settings=settings_of(build, sms),
        hashes=hashes,
        notes=(*built.notes, *(caveat(library) if build.refit else ()), *describe_quantized(graph, built.layers)),
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
        options["refit"] = partial(fill, library, manifest.member(source, WEIGHTS, manifest.hashes.get("stripped_weights")))
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
