"""Backends: modules with `check(build, target)`, `compile(graph, build, target, folder)` and `open(source, manifest)`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from toolkit.types import Target

BACKENDS = {
    "cpu": "onnxruntime.backend",
    "cuda": "onnxruntime.backend",
    "openvino": "openvino",
    "tensorrt": "tensorrt.backend",
    "rtx": "tensorrt.backend",
    "ort-rtx": "onnxruntime.plugin",
}


def backend(target: Target) -> Any:
    """The module that compiles for and opens `target`; its library is imported when first needed."""
    return import_module(f"toolkit.backends.{BACKENDS[target.family]}")
