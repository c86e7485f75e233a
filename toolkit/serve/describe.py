"""What the server tells of itself and its models: metadata, configuration, statistics, and the state that the page shows."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import toolkit
from toolkit.serve.live import Live, Model, full
from toolkit.serve.metrics import Metrics
from toolkit.serve.models import Models
from toolkit.serve.protocol import DATATYPES
from toolkit.types import TensorSpec

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
PLATFORMS = {"cpu": "onnxruntime_onnx", "cuda": "onnxruntime_onnx", "openvino": "openvino", "tensorrt": "tensorrt_plan"}
Sums = dict[tuple[str, str], dict[str, float]]


def server() -> dict[str, Any]:
    return {"name": "resnet-deploy", "version": toolkit.__version__, "extensions": list(EXTENSIONS)}


def metadata(model: Model, versions: list[str]) -> dict[str, Any]:
    manifest = model.ready().manifest
    return {
        "name": model.name,
        "versions": versions,
        "platform": _platform(manifest.target),
        "inputs": [_tensor(manifest.inputs[0])],
        "outputs": [_tensor(manifest.outputs[0])],
    }


def config(model: Model) -> dict[str, Any]:
    """In the words of Triton's ModelConfig, as its model configuration extension gives it."""
    live = model.ready()
    manifest, batching = live.manifest, live.batching
    gpu = manifest.target not in ("cpu", "openvino")
    return {
        "name": model.name,
        "platform": _platform(manifest.target),
        "backend": "resnet-deploy",
        "max_batch_size": max(batching.max_batch, full(batching)),
        "input": [_tensor_config(manifest.inputs[0])],
        "output": [_tensor_config(manifest.outputs[0])],
        "version_policy": {"all": {}},
        "instance_group": [{"count": batching.instances, "kind": "KIND_GPU" if gpu else "KIND_CPU"}],
        "dynamic_batching": {
            "preferred_batch_size": [full(batching)],
            "max_queue_delay_microseconds": round(batching.max_wait * 1e6),
            "default_queue_policy": {"max_queue_size": live.queue},
        },
        "parameters": {key: {"string_value": value} for key, value in facts(live).items()},
    }


def facts(live: Live) -> dict[str, str]:
    manifest = live.manifest
    return {
        "engine": manifest.name,
        "seal": live.seal,
        "precision": manifest.precision,
        "target": manifest.target,
        "outputs_are": manifest.outputs_are,
        "batching": "; ".join(live.batching.how),
    }


def index(models: Models, ready: bool) -> list[dict[str, str]]:
    return [
        {
            "name": model.name,
            "version": model.version,
            "state": "READY" if model.live else "UNAVAILABLE",
            "reason": model.reason or ("" if model.live else "unloaded"),
        }
        for model in models
        if model.live is not None or not ready
    ]


def statistics(metrics: Metrics, models: list[Model]) -> dict[str, Any]:
    """Triton's statistics extension, of all workers since they started."""
    sums = _sums(metrics)
    return {"model_stats": [_statistic(model, sums[model.name, model.version]) for model in models]}


def _statistic(model: Model, sums: dict[str, float]) -> dict[str, Any]:
    def duration(name: str) -> dict[str, int]:
        return {"count": int(sums[f"{name}_count"]), "ns": round(sums[f"{name}_sum"] * 1e9)}

    none = {"count": 0, "ns": 0}  # input and output are copied inside the engine's own time
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": round(sums["toolkit_last_answer_seconds"] * 1e3),
        "inference_count": int(sums["toolkit_batch_images_sum"]),
        "execution_count": int(sums["toolkit_batch_images_count"]),
        "inference_stats": {
            "success": duration("toolkit_request_seconds"),
            "fail": {"count": int(sums["toolkit_errors_total"]), "ns": 0},
            "queue": duration("toolkit_queue_seconds"),
            "compute_input": none,
            "compute_infer": duration("toolkit_batch_seconds"),
            "compute_output": none,
            "cache_hit": none,
            "cache_miss": none,
        },
        "batch_stats": [],
    }


def state(metrics: Metrics, models: Models) -> dict[str, Any]:
    """What the page shows: cumulative counts, of which it takes the difference between two looks."""
    sums = _sums(metrics)
    return {"ready": models.ready, "models": [_state(model, sums[model.name, model.version]) for model in models]}


def _state(model: Model, sums: dict[str, float]) -> dict[str, Any]:
    live = model.live
    manifest = None if live is None else live.manifest
    return {
        "name": model.name,
        "version": model.version,
        "ready": live is not None,
        "reason": model.reason,
        "facts": {} if live is None else facts(live),
        "shape": [] if manifest is None else list(manifest.inputs[0].shape[1:]),
        "max_batch": 0 if live is None else full(live.batching),
        "max_wait": 0 if live is None else live.batching.max_wait,
        "queue": sums["toolkit_queue_images"],
        "queue_limit": sums["toolkit_queue_limit"],
        "requests": sums["toolkit_request_seconds_count"],
        "errors": sums["toolkit_errors_total"],
        "swaps": sums["toolkit_swaps_total"],
        "images": sums["toolkit_batch_images_sum"],
        "batches": sums["toolkit_batch_images_count"],
        "batch_sizes": _buckets(sums, "toolkit_batch_images"),
        "latency": _buckets(sums, "toolkit_request_seconds"),
        "engine_seconds": sums["toolkit_batch_seconds_sum"],
    }


def _sums(metrics: Metrics) -> Sums:
    """By model and version; a histogram's buckets as `name<bound`. Routes, statuses and reasons are added up."""
    found: Sums = defaultdict(lambda: defaultdict(float))
    for name, labels, value in metrics.samples():
        key = name.removesuffix("_bucket") + "<" + labels["le"] if "le" in labels else name
        found[labels.get("model", ""), labels.get("version", "")][key] += value
    return found


def _buckets(sums: dict[str, float], name: str) -> list[tuple[float | None, float]]:
    """(upper bound, or None for the last; count of all up to it), in order."""
    pairs = [(float(key.split("<")[1]), value) for key, value in list(sums.items()) if key.startswith(f"{name}<")]
    return [(None if bound == float("inf") else bound, value) for bound, value in sorted(pairs)]


def _platform(target: str) -> str:
    return PLATFORMS.get(target.partition(":")[0], "tensorrt_rtx_plan")


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": [-1, *spec.shape[1:]]}


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{DATATYPES[spec.dtype]}", "dims": list(spec.shape[1:])}
