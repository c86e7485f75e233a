"""ONNX Runtime's profiler and its matrix products: time by node, and the peaks that an engine is held against."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.backends.onnxruntime import session
from toolkit.bench.layers import Layer, Layers
from toolkit.errors import MeasurementError
from toolkit.manifest import Manifest
from toolkit.types import Target

GEMM = 2048


def profile(folder: Path, manifest: Manifest, batch: int = 1, runs: int = 10) -> Layers:
    """Mean time of every node over `runs` runs of random images, after two that do not count.

    Raises EngineError, MeasurementError.
    """
    spec = manifest.inputs[0]
    shape = [batch if isinstance(size, str) else size for size in spec.shape]
    images = np.random.default_rng(0).standard_normal(shape).astype(spec.dtype)
    with tempfile.TemporaryDirectory() as scratch:
        settings = {**manifest.settings, "profile": str(Path(scratch) / "profile")}
        live = session(manifest.check_file(folder).read_bytes(), manifest.to_target(), settings)
        for _ in range(runs + 2):
            live.run(None, {spec.name: images})
        events = json.loads(Path(live.end_profiling()).read_text(encoding="utf-8"))
    return Layers(engine=manifest.name, batch=batch, runs=runs, layers=_layers(events, runs))


def _layers(events: list[dict[str, Any]], runs: int) -> tuple[Layer, ...]:
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            times.setdefault(name, []).append(event["dur"] / 1000)
            kinds[name] = event["args"]["op_name"]
    if not times:
        raise MeasurementError("ONNX Runtime's profile names no node")
    return tuple(Layer(name=name, kind=kinds[name], milliseconds=float(np.mean(all_[-runs:]))) for name, all_ in times.items())


def gemms(threads: int) -> dict[str, Callable[[], int]]:
    """Large matrix products in FP32 and in INT8 (unsigned by signed): each function runs one and returns its multiply-adds."""
    random = np.random.default_rng(0)
    left, right = random.standard_normal((2, GEMM, GEMM), dtype=np.float32)
    bytes_left = random.integers(0, 255, (GEMM, GEMM), dtype=np.uint8)
    bytes_right = random.integers(-127, 127, (GEMM, GEMM), dtype=np.int8)
    return {
        "fp32": _product("MatMul", left, right, threads),
        "int8": _product("MatMulInteger", bytes_left, bytes_right, threads),
    }


def _product(operator: str, left: np.ndarray[Any, Any], right: np.ndarray[Any, Any], threads: int) -> Callable[[], int]:
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
    out = TensorProto.FLOAT if operator == "MatMul" else TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["out"])],
        operator,
        [helper.make_tensor_value_info("left", kinds[str(left.dtype)], left.shape)],
        [helper.make_tensor_value_info("out", out, left.shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    live = session(model.SerializeToString(), Target("cpu"), {"threads": threads})

    def run() -> int:
        live.run(None, {"left": left})
        return GEMM**3

    return run
