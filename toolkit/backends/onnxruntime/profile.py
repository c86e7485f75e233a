"""ONNX Runtime's profiler and its matrix products: time by node, and the peaks that an engine is compared with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.backends.onnxruntime.backend import session
from toolkit.disk.drafts import scratch
from toolkit.errors import MeasurementError
from toolkit.harness.layers import Layer, LayerTimes
from toolkit.manifest import Manifest
from toolkit.types import Array, Contents, Target, noise


def profile(source: Contents, manifest: Manifest, batch: int = 1, runs: int = 10) -> LayerTimes:
    """Median time of every node over `runs` runs of random images, after two that do not count.

    Raises EngineError, MeasurementError.
    """
    spec = manifest.inputs[0]
    images = noise(spec, batch)
    with scratch() as folder:
        live = session(
            manifest.compiled(source), manifest.to_target(), manifest.settings, profile=folder / "profile"
        )
        for _ in range(runs + 2):
            live.run(None, {spec.name: images})
        events = json.loads(Path(live.end_profiling()).read_text(encoding="utf-8"))
    return LayerTimes(engine=manifest.name, batch=batch, runs=runs, layers=_layers(events, runs))


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
    return tuple(Layer(name=name, kind=kinds[name], milliseconds=float(np.median(all_[-runs:]))) for name, all_ in times.items())


def small_layers(chain: bytes, threads: int) -> Callable[[], object]:
    """Runs a chain of small layers, as `graph.product` makes it, on so many threads: they spin within a call, as engines do."""
    live = session(chain, Target("cpu"), {"threads": threads, "spin": True})
    spec = live.get_inputs()[0]
    image = np.ones(spec.shape, np.float32)
    return lambda: live.run(None, {spec.name: image})


def gemms(products: dict[str, bytes], threads: int) -> dict[str, Callable[[], int]]:
    """`products`: type -> a graph of one square matrix product, as `graph.product` makes them.

    Each function given back runs one and returns its multiply-adds.
    """
    return {kind: _gemm(model, threads) for kind, model in products.items()}


def _gemm(model: bytes, threads: int) -> Callable[[], int]:
    live = session(model, Target("cpu"), {"threads": threads})
    spec = live.get_inputs()[0]
    size = spec.shape[0]
    random = np.random.default_rng(0)
    left: Array
    if "uint8" in spec.type:
        left = random.integers(0, 255, (size, size), dtype=np.uint8)
    else:
        left = random.standard_normal((size, size), dtype=np.float32)

    def run() -> int:
        live.run(None, {spec.name: left})
        return int(size**3)

    return run
