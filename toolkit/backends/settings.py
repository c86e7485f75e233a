"""What a backend may be told by a manifest or by `toolkit.load(...)`: known keys, of known types, in known ranges.

An engine may come from a stranger. Whatever is not listed here is refused, and nothing here names a file to be written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from toolkit.errors import EngineError
from toolkit.types import Frozen

Sm = Annotated[int, Meta(ge=10, le=999)]  # a compute capability, 89 for 8.9
Threads = Annotated[int, Meta(ge=1, le=1024)]


class SessionSettings(Frozen, frozen=True):
    """ONNX Runtime, on the CPU and on CUDA."""

    threads: Threads = 1
    spin: bool = False  # whether threads spin while they wait for each other within a call
    cpu: Literal["any", "vnni"] = "any"  # the CPUs that an INT8 engine is right on


class OpenVinoSettings(Frozen, frozen=True):
    """OpenVINO; `precision_hint` and `streams` are what the build saw, and are not set again."""

    threads: Threads = 1
    precision_hint: Literal["f32"] = "f32"
    streams: Annotated[int, Meta(ge=0, le=1024)] = 1
    cpu: Literal["any", "vnni"] = "any"


class PlanSettings(Frozen, frozen=True):
    """TensorRT and TensorRT-RTX: what the plan was built with, as in the recipe's [build]."""

    sm: Sm | None = None
    sms: Annotated[list[Sm], Meta(min_length=1, max_length=64)] | None = None
    workspace_mib: Annotated[int, Meta(ge=1)] | None = None
    optimization_level: Annotated[int, Meta(ge=0, le=5)] | None = None
    timing_cache: bool = False
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    version_compatible: bool = False
    refit: bool = False
    strip_weights: bool = False


class CpuOptions(Frozen, frozen=True):
    """What `toolkit.load` takes for an engine that runs on the CPU, or on CUDA by ONNX Runtime."""

    threads: Threads | None = None


class PluginOptions(Frozen, frozen=True):
    """What `toolkit.load` takes for an engine that ONNX Runtime runs by NVIDIA's plugin: nothing."""


class PlanOptions(Frozen, frozen=True):
    """What `toolkit.load` takes for a TensorRT engine; `device` and `jit_cache` are objects of the app's own."""

    device: Any = None
    jit_cache: Any = None
    contexts: Annotated[int, Meta(ge=1, le=1024)] = 2
    graphs: bool = True

    def __post_init__(self) -> None:
        if self.jit_cache is not None and not isinstance(self.jit_cache, (str, os.PathLike)):
            raise ValueError("`jit_cache` must be a path")


_S = TypeVar("_S", bound=Frozen)


def checked(values: Mapping[str, Any], kind: type[_S], whose: str) -> _S:
    """The values as `kind` holds them. Raises EngineError, which names the key and what is allowed; `whose` begins it."""
    try:
        return msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at ")
        key = where.strip("`$.")
        allowed = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        about = f"`{key}` = {values.get(key)!r:.80}: " if key in values else ""
        what = f"{whose}: {about}{said[0].lower()}{said[1:]}"
        raise EngineError(what, remedy=f"Allowed are {allowed}, as docs/how-to/embedding.md tells them") from error
