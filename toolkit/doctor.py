"""Doctor: what this machine can build and run, and the next command for each thing that it cannot."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple

import toolkit
from toolkit import cpu
from toolkit.backends.tensorrt import library as tensorrt_library
from toolkit.errors import BackendError, DeviceError, MissingExtra, ToolkitError
from toolkit.harness.environment import read_gpus
from toolkit.runtime.device import best
from toolkit.types import PORTABLE_FROM, Frozen

# Package -> the extra that brings it, and what it is for.
PACKAGES = {
    "torch": ("export", "the PyTorch reference and its export"),
    "onnx": ("export", "building an engine"),
    "onnx-ir": ("export", "building an engine"),
    "onnxscript": ("export", "building an engine"),
    "safetensors": ("export", "weights"),
    "numba": ("export", "calibration"),
    "onnxruntime": ("cpu", "target cpu"),
    "onnxruntime-gpu": ("gpu", "target cuda"),
    "tensorrt": ("gpu", "target tensorrt"),
    "tensorrt-rtx": ("rtx", "targets rtx and rtx:smNN"),
    "onnxruntime-ep-nv-tensorrt-rtx-cu13": ("ort-rtx", "running target ort-rtx"),
    "cuda-bindings": ("gpu", "running on a GPU"),
    "pycuda": ("pycuda", "running on a GPU in an app that uses PyCUDA"),
    "nvidia-ml-py": ("gpu", "power and clocks of a GPU"),
    "mlcommons-loadgen": ("mlperf", "the MLPerf scenarios"),
    "openvino": ("openvino", "target openvino"),
}
PLUGIN = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
BUILDERS = ("torch", "onnx", "onnx-ir", "onnxscript", "safetensors", "numba", "onnxruntime")

ELSEWHERE = "Run it on a machine with a GPU of one of these"


class Capability(Frozen, frozen=True):
    """One thing looked at. `build` and `run` are answered for targets only; `next` is empty where nothing is missing."""

    topic: Literal["machine", "library", "gpu", "target"]
    name: str
    found: str  # a version, a GPU's data, or why it is not there
    build: bool | None = None
    run: bool | None = None
    next: str = ""


class Here(NamedTuple):
    """What the targets' rows draw on."""

    packages: dict[str, str]  # package -> version
    providers: tuple[str, ...]  # that ONNX Runtime has
    gpu: str  # its name; empty where none can be used
    sm: int | None
    no_gpu: ToolkitError | None


def examine() -> tuple[Capability, ...]:
    """Look at Python, the libraries, the GPUs and then at every target. Nothing is built, and no engine is loaded."""
    here = look()
    system = f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}, {cpu.cores()} cores"
    vnni = (
        "VNNI: INT8 sums in 32 bits"
        if cpu.has_vnni()
        else "no VNNI: INT8 weights are limited, so that 16-bit sums cannot saturate"
    )
    machine = [
        Capability(topic="machine", name="toolkit", found=f"{toolkit.__version__} on {system}"),
        Capability(topic="machine", name="CPU", found=f"{cpu.name()}; {vnni}"),
    ]
    return (*machine, *libraries(here), *gpus(here), *targets(here))


def look() -> Here:
    """Read package versions, providers and the GPU."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    providers: tuple[str, ...] = ()
    if "onnxruntime" in packages or "onnxruntime-gpu" in packages:
        from toolkit.backends.onnxruntime.backend import library

        providers = tuple(library().get_available_providers())
    try:
        device = best()
    except (MissingExtra, DeviceError) as error:
        return Here(packages, providers, "", None, error)
    try:
        return Here(packages, providers, device.name, device.sm, None)
    finally:
        device.close()


def libraries(here: Here) -> list[Capability]:
    """A row a package."""
    rows = []
    for name, (extra, purpose) in PACKAGES.items():
        found = here.packages.get(name)
        command = "" if found else f"pip install 'resnet-deploy[{extra}]'"
        if name == "onnxruntime" and not found and "onnxruntime-gpu" in here.packages:
            found, command = "onnxruntime-gpu serves", ""  # the two share one module and must not stand side by side
        text = f"{found}" if found else f"not installed; it is for {purpose}"
        if name.startswith("onnxruntime") and found:
            text += f" ({', '.join(provider.removesuffix('ExecutionProvider') for provider in here.providers)})"
        rows.append(Capability(topic="library", name=name, found=text, next=command))
    return rows


def gpus(here: Here) -> list[Capability]:
    """A row a GPU, or one that says why there is none."""
    listed, _ = read_gpus()
    rows = [Capability(topic="gpu", name=gpu.name, found=f"driver {gpu.driver}, {gpu.memory_mib} MiB") for gpu in listed]
    if here.no_gpu is None:
        return [*rows, Capability(topic="gpu", name=here.gpu, found=f"sm{here.sm}; engines run on this one")]
    return [*rows, Capability(topic="gpu", name="none to run on", found=here.no_gpu.what, next=_next(here.no_gpu))]


def targets(here: Here) -> list[Capability]:
    """A row a target: can it be built here, can it run here, and what is next where not."""
    missing = [name for name in BUILDERS if name not in here.packages and not (name == "onnxruntime" and here.providers)]
    tools = f"pip install 'resnet-deploy[{PACKAGES[missing[0]][0]}]'" if missing else ""
    rows = [_cpu(here, tools), _openvino(here, tools), _cuda(here, tools), _tensorrt(here, tools)]
    rtx = _rtx(here, tools)
    return [*rows, *rtx, _hosted(here, rtx[0])]


def _cpu(here: Here, tools: str) -> Capability:
    runs = "CPUExecutionProvider" in here.providers
    command = tools or ("" if runs else "pip install 'resnet-deploy[cpu]'")
    return Capability(topic="target", name="cpu", found="ONNX Runtime", build=runs and not tools, run=runs, next=command)


def _openvino(here: Here, tools: str) -> Capability:
    runs = "openvino" in here.packages
    found = f"OpenVINO {here.packages['openvino']}" if runs else "the Python package 'openvino' is not installed"
    command = tools or ("" if runs else "pip install 'resnet-deploy[openvino]'")
    return Capability(topic="target", name="openvino", found=found, build=runs and not tools, run=runs, next=command)


def _cuda(here: Here, tools: str) -> Capability:
    provider = "CUDAExecutionProvider" in here.providers
    runs = provider and bool(here.gpu)
    why = "" if provider else "pip install 'resnet-deploy[gpu]'"
    command = tools or why or ("" if here.gpu else _next(here.no_gpu))
    found = "ONNX Runtime's CUDA provider"
    return Capability(topic="target", name="cuda", found=found, build=runs and not tools, run=runs, next=command)


def _tensorrt(here: Here, tools: str) -> Capability:
    try:
        found = f"TensorRT {tensorrt_library.load('tensorrt').version}"
    except BackendError as error:
        return Capability(topic="target", name="tensorrt", found=error.what, build=False, run=False, next=_next(error))
    works = bool(here.gpu)
    command = tools or _next(here.no_gpu)
    return Capability(topic="target", name="tensorrt", found=found, build=works and not tools, run=works, next=command)


def _rtx(here: Here, tools: str) -> list[Capability]:
    try:
        library = tensorrt_library.load("rtx")
    except BackendError as error:
        return [Capability(topic="target", name="rtx", found=error.what, build=False, run=False, next=_next(error))]
    sms = sorted(library.architectures)
    portable = [sm for sm in sms if sm >= PORTABLE_FROM]
    runs = here.sm in portable
    found = f"TensorRT-RTX {library.version}, one engine for {', '.join(f'sm{sm}' for sm in portable)}"
    command = tools or ("" if runs else ELSEWHERE)
    rows = [Capability(topic="target", name="rtx", found=found, build=not tools, run=runs, next=command)]
    for sm in sms:
        runs = here.sm == sm
        elsewhere = f"Run it on a GPU of sm{sm}" if here.gpu else f"Run it on a machine with a GPU of sm{sm}"
        command = tools or ("" if runs else elsewhere)
        found = f"TensorRT-RTX {library.version}"
        rows.append(Capability(topic="target", name=f"rtx:sm{sm}", found=found, build=not tools, run=runs, next=command))
    return rows


def _hosted(here: Here, rtx: Capability) -> Capability:
    """An engine of `rtx` inside an ONNX file: built wherever that one is, and run by ONNX Runtime with NVIDIA's plugin."""
    plugin, sm = PLUGIN in here.packages, here.sm or 0
    runs = plugin and bool(rtx.run) and (sm in (86, 89) or sm >= 120)  # what release 0.5 of the plugin runs on
    command = rtx.next if plugin or not rtx.build else "pip install 'resnet-deploy[ort-rtx]'"
    command = command or ("" if runs else "Run it on a machine with a GPU of sm86, sm89, sm120 or later")
    found = f"{rtx.found}; inside an ONNX file" if rtx.build else rtx.found
    return Capability(topic="target", name="ort-rtx", found=found, build=rtx.build, run=runs, next=command)


def _next(error: ToolkitError | None) -> str:
    """The command in an error's remedy; of one that sends the reader here, the driver's own tool."""
    command = "" if error is None else (error.remedy or error.what).removeprefix("Run: ")
    return "nvidia-smi" if command == "toolkit doctor" else command
