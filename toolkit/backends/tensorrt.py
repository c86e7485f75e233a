"""TensorRT 11, TensorRT 10.13+ and TensorRT-RTX: one strongly typed path. What the graph says is what is compiled.

`compile` needs no GPU for a target like `rtx:sm89`: TensorRT-RTX builds for an SM that is not there. TensorRT itself times
kernels on the GPU that it builds for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.backends import tensorrt_library as libraries
from toolkit.backends.tensorrt_layers import describe_int8, layers_of, rows_of
from toolkit.backends.tensorrt_library import Library, Message
from toolkit.backends.tensorrt_options import configure, refuse_options, settings_of
from toolkit.backends.tensorrt_parse import parse
from toolkit.errors import EngineError, GraphError
from toolkit.manifest import Manifest, cache_folder, sha256, sha256_bytes, write_atomically
from toolkit.onnxfile import serialise
from toolkit.recipe import Build
from toolkit.runtime.device import Device, best, current
from toolkit.runtime.tensorrt import TensorRTExecutor
from toolkit.types import Compiled, Target

if TYPE_CHECKING:
    import onnx_ir as ir

PLAN = "engine.plan"
LAYERS = "layers.json"
WEIGHTS = "weights.onnx"  # beside a plan without weights: what `open` fills it from


def compile(graph: ir.Model, build: Build, target: Target, folder: Path) -> Compiled:
    """Compile `graph` for every profile of `build` into `folder`: the plan, and the report of its layers.

    Raises MissingExtra or BackendError for a library or an option that is not there, GraphError for a node that the library
    refuses (it names the node), DeviceError where the target needs a GPU that is absent or out of memory.
    """
    library = libraries.load(target.kind)
    refuse_options(library, build)
    data = serialise(graph)
    with _gpu(library) as device, libraries.log_of(library.trt).listen() as heard:
        plan, cache = _build(library, data, build, target, device, heard)
        report = layers_of(library, plan, device, heard)
    write_atomically(folder / PLAN, plan)
    write_atomically(folder / LAYERS, json.dumps(report, indent=1).encode() + b"\n")
    hashes = {} if cache is None else {"timing_cache": sha256(cache)}
    if build.strip_weights:
        write_atomically(folder / WEIGHTS, data)
        hashes["stripped_weights"] = sha256_bytes(data)
    sm = target.sm if device is None else device.sm
    assert sm is not None  # Target.parse gives every `rtx` one
    return Compiled(
        file=PLAN,
        device=f"any GPU of sm{sm}, built without one" if device is None else f"{device.name} (sm{sm})",
        versions={library.package: library.version},
        settings=settings_of(build, sm),
        hashes=hashes,
        notes=(*libraries.warnings_of(heard), *describe_int8(graph, rows_of(heard))),
    )


def open(folder: Path, manifest: Manifest, *, device: Device | None = None, **options: Any) -> TensorRTExecutor:
    """The engine in `folder`, live on `device` (absent: the GPU of the current CUDA context, or else the first).

    `options` go to the TensorRTExecutor: `contexts`, `graphs`, `jit_cache`. The file's hash, then library, version and GPU are
    held against the manifest before the library sees the file. Raises EngineError, BackendError, DeviceError.
    """
    path = manifest.check_file(folder)
    library = libraries.load(manifest.to_target().kind)
    log = libraries.log_of(library.trt)
    kernels = cache_folder() / "kernels" / f"{library.package}-{library.version}-{manifest.hashes['file'][:24]}.bin"
    if manifest.settings.get("strip_weights"):
        options["refit"] = partial(_refit, library, _weights(folder, manifest))
    if library.kind == "rtx":
        options.setdefault("jit_cache", kernels)
    return TensorRTExecutor(
        library.trt,
        best() if device is None else device,
        path.read_bytes(),
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


def _build(
    library: Library, data: bytes, build: Build, target: Target, device: Device | None, heard: list[Message]
) -> tuple[bytes, Path | None]:
    """The serialised engine, and the file of its timing cache where there is one."""
    trt, handle = library.trt, libraries.log_of(library.trt).handle
    builder = trt.Builder(handle)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parse(library, network, data, handle)
    config = builder.create_builder_config()
    configure(library, config, build, target)
    for batches in build.profiles:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            profile.set_shape(tensor.name, *_shapes(tensor.name, tuple(tensor.shape), batches))
        if config.add_optimization_profile(profile) < 0:
            raise libraries.explain(library, f"the profile {list(batches)} cannot be added", heard)
    cache = _timing_cache(library, config, device) if build.timing_cache and device is not None else None
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise libraries.explain(library, f"the engine for {target} cannot be built", heard)
    if cache is not None:
        write_atomically(cache, bytes(memoryview(config.get_timing_cache().serialize())))
    return bytes(memoryview(plan)), cache


def _shapes(name: str, shape: tuple[int, ...], batches: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The input's shape at each of the three batches. Raises GraphError for a shape that the batches do not fit."""
    batch, *image = shape
    if -1 in image:
        what = f"input '{name}' has an open size besides the batch: {list(shape)}"
        raise GraphError(what, remedy="Fix height and width: `preprocess.size`")
    if batch != -1 and any(size != batch for size in batches):
        remedy = f"Set `build.batch` to [{batch}, {batch}, {batch}], or export it with an open batch"
        raise GraphError(f"input '{name}' has a fixed batch of {batch}", remedy=remedy)
    return [(size, *image) for size in batches]


def _timing_cache(library: Library, config: Any, device: Device) -> Path:
    """Give the builder what earlier builds measured on this kind of GPU with this version. Returns where it is kept."""
    file = cache_folder() / "timing" / f"{device.name.replace(' ', '-')}-sm{device.sm}-{library.version}.bin"
    file.parent.mkdir(parents=True, exist_ok=True)
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if not config.set_timing_cache(cache, False):
        raise EngineError(f"{library.name} refuses the timing cache {file}", remedy=f"Delete {file}")
    return file


def _weights(folder: Path, manifest: Manifest) -> bytes:
    path = folder / WEIGHTS
    if not path.is_file() or sha256(path) != manifest.hashes.get("stripped_weights"):
        what = f"{path}, the weights that the engine was stripped of, is missing or another"
        raise EngineError(what, remedy="Copy it again or build the engine again")
    return path.read_bytes()


def _refit(library: Library, weights: bytes, engine: Any) -> None:
    """Put the weights back into an engine that was built without them."""
    trt, log = library.trt, libraries.log_of(library.trt)
    with log.listen() as heard:
        refitter = trt.Refitter(engine, log.handle)
        parser = trt.OnnxParserRefitter(refitter, log.handle)
        if not parser.refit_from_bytes(weights) or not refitter.refit_cuda_engine():
            raise libraries.explain(library, "the stripped weights cannot be put back", heard)
