"""A recipe's [build] options on TensorRT's builder: set, or refused where the library has no such thing. Never ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.backends.tensorrt.library import Library, require_architectures
from toolkit.errors import BackendError
from toolkit.recipe import Build
from toolkit.types import Target

if TYPE_CHECKING:
    import onnx_ir as ir

# TensorRT-RTX has the names of these, and what comes of them is known by trial with 1.7.1.
ABSENT_IN_RTX = {
    "optimization_level": "it writes the same engine at every level",
    "timing_cache": "it times nothing while it builds",
    "hardware_compatibility": "an engine is for the SMs that its target names, such as rtx or rtx:sm89+sm120",
    "version_compatible": "the lean runtime that it needs is not shipped",
    "refit": "its compiler fails",
    "strip_weights": "its compiler fails",
}
TYPES = {"FLOAT8E4M3FN": ("FP8", 89), "BFLOAT16": ("BF16", 80)}  # in ONNX's words -> in the field's, and the first SM with it
FLAGS = {"refit": "REFIT", "strip_weights": "STRIP_PLAN", "version_compatible": "VERSION_COMPATIBLE"}
LEVELS = {"none": "NONE", "ampere_plus": "AMPERE_PLUS", "same_compute_capability": "SAME_COMPUTE_CAPABILITY"}


def refuse_options(library: Library, build: Build) -> None:
    """Raise BackendError, which says why, for the first option of `build` that the library does not have."""
    default = Build()
    for key in ("threads", "spin"):
        if getattr(build, key) is not None:
            what = f"`build.{key}` is an option of ONNX Runtime; {library.name} has none"
            raise BackendError(what, remedy="Remove it, or build for cpu")
    if build.cpu != default.cpu:
        what = f"`build.cpu` is an option of targets cpu and openvino; {library.name} has none"
        raise BackendError(what, remedy="Remove it, or build for cpu")
    if library.kind == "rtx":
        for key, why in ABSENT_IN_RTX.items():
            if getattr(build, key) != getattr(default, key):
                raise BackendError(f"{library.name} has no `build.{key}`: {why}", remedy=f"Remove `{key}`, or build for tensorrt")
    for key, flag in FLAGS.items():
        if getattr(build, key) and flag not in library.trt.BuilderFlag.__members__:
            raise BackendError(f"{library.name} {library.version} has no `build.{key}`", remedy=f"Remove `{key}`")
    level = LEVELS[build.hardware_compatibility]
    if level != "NONE" and level not in library.trt.HardwareCompatibilityLevel.__members__:
        raise BackendError(f"{library.name} {library.version} has no hardware compatibility '{build.hardware_compatibility}'")


def refuse_types(library: Library, graph: ir.Model, sms: Sequence[int]) -> None:
    """Raise BackendError, which names the SMs, where the graph holds a type that some of `sms` cannot compute in."""
    held = {output.dtype.name for node in graph.graph for output in node.outputs if output.dtype is not None}
    for kind, (name, first) in TYPES.items():
        lacking = [sm for sm in sms if sm < first]
        if kind in held and lacking:
            remedy = f"Build for --target rtx:sm{first}+" if library.kind == "rtx" else "Use int8 and fp16 on this GPU"
            named = ", ".join(f"sm{sm}" for sm in lacking)
            raise BackendError(f"{named} cannot compute in {name}, which begins with sm{first}", remedy=remedy)


def configure(library: Library, config: Any, build: Build, target: Target) -> None:
    """Set all that `build` asks for on an IBuilderConfig; `refuse_options` has passed. Raises BackendError for an unknown SM."""
    trt = library.trt
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if library.kind == "rtx":
        names = require_architectures(library, target)
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names.values()):
            config.set_compute_capability(trt.ComputeCapability.__members__[name], index)
    if build.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, build.workspace_mib << 20)
    if build.optimization_level is not None:
        config.builder_optimization_level = build.optimization_level
    for key, flag in FLAGS.items():
        if getattr(build, key):
            config.set_flag(trt.BuilderFlag.__members__[flag])
    if build.hardware_compatibility != "none":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.__members__[LEVELS[build.hardware_compatibility]]


def settings_of(build: Build, sms: Sequence[int]) -> dict[str, Any]:
    """What the manifest keeps: the SM or SMs, and every option that is not at its default; `open` judges an engine by them."""
    default = Build()
    keys = ("workspace_mib", "optimization_level", "timing_cache", "hardware_compatibility", *FLAGS)
    built_for = {"sm": sms[0]} if len(sms) == 1 else {"sms": list(sms)}
    return built_for | {key: getattr(build, key) for key in keys if getattr(build, key) != getattr(default, key)}
