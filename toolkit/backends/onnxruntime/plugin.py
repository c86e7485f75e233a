"""`ort-rtx`: a TensorRT-RTX engine inside an ONNX file, run by ONNX Runtime with NVIDIA's plugin.

It is built as for `rtx`, without a GPU. An app needs onnxruntime and the plugin, which brings its own TensorRT-RTX.
"""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from toolkit.backends.onnxruntime.backend import SessionExecutor, library
from toolkit.backends.settings import PlanSettings, PluginOptions, checked
from toolkit.backends.tensorrt import backend as tensorrt
from toolkit.disk.files import write_atomically
from toolkit.errors import DeviceError, EngineError, MissingExtra, RecipeError
from toolkit.manifest import Manifest
from toolkit.recipe import Build
from toolkit.types import PORTABLE_FROM, Compiled, Contents, DType, Target, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

FILE = "engine.onnx"
MODULE, PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx", "onnxruntime-ep-nv-tensorrt-rtx-cu13"
SETTINGS, OPTIONS = PlanSettings, PluginOptions
_NEXT = "Run it on a machine with an NVIDIA driver and a GPU of its SMs"


def check(build: Build, target: Target) -> None:
    """Raise what `compile` would raise for want of a library, an option or an SM, before there is any graph."""
    if len(build.profiles) > 1:
        what = f"target {target} takes one range of batches, and `build.batch` names {len(build.profiles)}"
        raise RecipeError(what, remedy="Leave one [min, opt, max], or build for rtx")
    if build.strip_weights:
        what = f"target {target} stores an engine with its weights: ONNX Runtime cannot put stripped ones back"
        raise RecipeError(what, remedy="Remove `build.strip_weights`, or build for rtx")
    tensorrt.check(build, _plain(target))


def compile(graph: ir.Model, build: Build, target: Target, folder: Path) -> Compiled:
    """As for `rtx`, and the plan put into an ONNX file as its one EPContext node. Raises what that does."""
    from toolkit.backends.onnxruntime.epcontext import EMBEDDABLE, ep_context

    check(build, target)
    made = tensorrt.compile(graph, build, _plain(target), folder)
    plan = (folder / made.file).read_bytes()
    if len(plan) > EMBEDDABLE:
        what = f"the engine has {len(plan) / 2**30:.1f} GiB; an ONNX file holds less than 2"
        raise EngineError(what, remedy="Build for rtx, and run: toolkit handoff ort ENGINE --no-embed")
    name = graph.graph.name or "network"
    ends = (_specs(graph.graph.inputs), _specs(graph.graph.outputs))
    sms = architecture(target, made.settings)
    write_atomically(
        folder / FILE,
        ep_context(plan, *ends, name=name, sdk=made.versions["tensorrt_rtx"], architecture=sms, metadata={}),
    )
    (folder / made.file).unlink()
    return msgspec.structs.replace(made, file=FILE)


def open(source: Contents, manifest: Manifest) -> SessionExecutor:
    """A live session on the first GPU that the plugin runs on. Raises MissingExtra, DeviceError, EngineError."""
    checked(manifest.settings, SETTINGS, f"the settings of {manifest.name}")
    data = manifest.compiled(source)
    onnxruntime, devices = _plugin()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_provider_for_devices(devices[:1], {})
    try:
        live = onnxruntime.InferenceSession(data, options)
    except Exception as error:  # ONNX Runtime's own classes, made while it loads
        built = manifest.versions.get("tensorrt_rtx", "an unknown version")
        what = f"the plugin cannot load {manifest.name}, built by TensorRT-RTX {built}: {str(error).strip()}"
        raise EngineError(what, remedy=f"Install the {PACKAGE} that carries this version, or build the engine again") from error
    executor = SessionExecutor(live, manifest.inputs[0].name, manifest.outputs[0].name)
    executor.max_batch = manifest.largest
    return executor


def architecture(target: Target, settings: dict[str, Any]) -> str:
    """What the node says of GPUs: `80+` for every one from Ampere on, else the one SM, or several with commas."""
    if target.onward and target.sm == PORTABLE_FROM:
        return "80+"
    return ",".join(str(sm) for sm in settings.get("sms") or [settings.get("sm", target.sm)])


@functools.cache
def _plugin() -> tuple[Any, list[Any]]:
    """ONNX Runtime with the plugin registered, and the GPUs that it runs on. Raises MissingExtra, DeviceError."""
    try:
        onnxruntime = library()
        plugin = import_module(MODULE)
    except (MissingExtra, ImportError) as error:
        raise MissingExtra("onnxruntime" if isinstance(error, MissingExtra) else PACKAGE, "ort-rtx") from None
    try:
        onnxruntime.register_execution_provider_library("resnet-deploy", plugin.get_library_path())
    except Exception as error:  # the library itself, or one of the driver's that it links to
        raise DeviceError(f"NVIDIA's plugin for ONNX Runtime does not load: {str(error).strip()}", remedy=_NEXT) from error
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == plugin.get_ep_name()]
    if not devices:
        raise DeviceError("NVIDIA's plugin for ONNX Runtime finds no GPU that it runs on", remedy=_NEXT)
    return onnxruntime, devices


def _plain(target: Target) -> Target:
    return msgspec.structs.replace(target, hosted=False)


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    kinds: dict[str, DType] = {"FLOAT": "float32", "FLOAT16": "float16", "UINT8": "uint8", "INT8": "int8"}
    return tuple(
        TensorSpec(name=v.name, dtype=kinds[v.dtype.name], shape=tuple(d if isinstance(d, int) else "N" for d in v.shape))
        for v in values
    )
