"""One build: an ONNX file into TensorRT's network, a configuration, profiles, and the plan."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from toolkit.backends.tensorrt import library as libraries
from toolkit.backends.tensorrt.layers import rows_of
from toolkit.backends.tensorrt.library import Library, Message
from toolkit.backends.tensorrt.options import configure
from toolkit.backends.tensorrt.parse import parse
from toolkit.disk.cache import place
from toolkit.disk.files import read_regular, write_atomically
from toolkit.errors import EngineError, GraphError
from toolkit.recipe import Build
from toolkit.runtime.device import Device
from toolkit.types import Frozen, Target


class Built(Frozen, frozen=True):
    """What the builder made: the plan, what it warned of, its layers as its log tells them, and the timing cache's file."""

    plan: bytes
    notes: tuple[str, ...]
    layers: list[dict[str, Any]]
    timing_cache: str | None = None


def build_plan(library: Library, data: bytes, build: Build, target: Target, device: Device | None = None) -> Built:
    """Compile the bytes of an ONNX file; `device` is the GPU to build on, None for TensorRT-RTX.

    Raises GraphError for a node that is refused, BackendError or DeviceError where no plan comes out.
    """
    with libraries.log_of(library.trt).listen() as heard:
        plan, cache = _build(library, data, build, target, device, heard)
    kept = None if cache is None else str(cache)
    return Built(plan=plan, notes=libraries.warnings_of(heard), layers=rows_of(heard), timing_cache=kept)


def _build(
    library: Library, data: bytes, build: Build, target: Target, device: Device | None, heard: list[Message]
) -> tuple[bytes, Path | None]:
    trt, handle = library.trt, libraries.log_of(library.trt).handle
    builder = trt.Builder(handle)
    builder.max_threads = 1  # several threads would number things in an order of their own each time
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
    cache = _timing_cache(library, config, device) if build.timing_cache and device is not None else None  # None: no place for it
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise libraries.explain(library, f"the engine for {target} cannot be built", heard)
    try:
        if cache is not None:
            write_atomically(cache, bytes(memoryview(config.get_timing_cache().serialize())))
    except OSError:  # the next build measures again
        cache = None
    return bytes(memoryview(plan)), cache


def _shapes(name: str, shape: tuple[int, ...], batches: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The input's shape at each of the three batches. Raises GraphError for a shape that the batches do not fit."""
    batch, *image = shape
    if -1 in image:
        what = f"input '{name}' has a dynamic dimension besides the batch: {list(shape)}"
        raise GraphError(what, remedy="Fix height and width: `preprocess.size`")
    if batch != -1 and any(size != batch for size in batches):
        remedy = f"Set `build.batch` to [{batch}, {batch}, {batch}], or export it with a dynamic batch"
        raise GraphError(f"input '{name}' has a fixed batch of {batch}", remedy=remedy)
    return [(size, *image) for size in batches]


def _timing_cache(library: Library, config: Any, device: Device) -> Path | None:
    """Give the builder what earlier builds measured on this kind of GPU with this version. Returns where it is to be kept."""
    kept, file = b"", None
    with suppress(OSError):
        file = place("timing", f"{device.name.replace(' ', '-')}-sm{device.sm}-{library.version}.bin")
        kept = read_regular(file)
    if not config.set_timing_cache(config.create_timing_cache(kept), False):
        raise EngineError(f"{library.name} refuses the timing cache {file}", remedy=f"Delete {file}")
    return file
