"""One peer in a process of its own: loads a model, then runs it when it is told to, and only then.

    python peer_worker.py KIND MODEL IMAGES ANSWERS THREADS BATCH

prints one JSON line when ready, then for each line `N` on its input runs the model N times and prints the seconds of each, and
the processor seconds that it used since the last answer although it had nothing to do. It needs numpy and the peer's packages.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

Run = Callable[[Any], Any]


def torch_model(model: str, threads: int) -> Any:
    import torch

    from toolkit.recipe import Reference
    from toolkit.reference.weights import load_reference

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return load_reference(Reference(arch="resnet50", weights=model)).eval()


def eager(model: str, threads: int) -> Run:
    import torch

    net = torch_model(model, threads)
    return lambda images: net(torch.from_numpy(images)).numpy()


def channels_last(model: str, threads: int) -> Run:
    import torch

    net = torch_model(model, threads).to(memory_format=torch.channels_last)
    return lambda images: net(torch.from_numpy(images).to(memory_format=torch.channels_last)).numpy()


def compiled(model: str, threads: int) -> Run:
    import torch
    import torch._inductor.config as inductor

    inductor.freezing = True
    net = torch.compile(torch_model(model, threads), dynamic=False)
    return lambda images: net(torch.from_numpy(images)).numpy()


def onnxruntime(model: str, threads: int) -> Run:
    import onnxruntime as library

    options = library.SessionOptions()  # as it comes, but for the threads
    options.intra_op_num_threads = threads
    session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def openvino(model: str, threads: int) -> Run:
    import openvino as library

    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    net = library.Core().compile_model(model, "CPU", hints)
    return lambda images: net(images)[0]


def engine(model: str, threads: int) -> Run:
    import toolkit

    return toolkit.load(model)  # its manifest says how many threads


KINDS: dict[str, tuple[Callable[[str, int], Run], str]] = {
    "eager": (eager, "torch"),
    "channels-last": (channels_last, "torch"),
    "compile": (compiled, "torch"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
    "openvino": (openvino, "openvino"),
    "engine": (engine, "onnxruntime"),
}


def quantize(model: str, images: str, output: str) -> None:
    """OpenVINO's INT8 by NNCF, as its documentation does it: default preset, each calibration image once."""
    import nncf
    import openvino as library

    data = np.load(images)
    dataset = nncf.Dataset([data[i : i + 1] for i in range(len(data))])
    quantized = nncf.quantize(library.Core().read_model(model), dataset, subset_size=len(data))
    library.save_model(quantized, output, compress_to_fp16=False)


def main() -> None:
    kind, model, images, answers, threads, batch = sys.argv[1:]
    if kind == "quantize":
        return quantize(model, images, answers)
    open_peer, package = KINDS[kind]
    data = np.load(images)
    run = open_peer(model, int(threads))
    one = np.ascontiguousarray(data[: int(batch)])
    step = len(one) if kind == "compile" else 16  # a compiled graph is made for one batch
    np.save(answers, np.concatenate([run(np.ascontiguousarray(data[i : i + step])) for i in range(0, len(data), step)]))
    print(json.dumps({"package": package, "version": importlib.metadata.version(package), "pid": os.getpid()}), flush=True)
    idle_from = time.process_time()
    for line in sys.stdin:
        idle = time.process_time() - idle_from
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run(one)
            seconds.append(time.perf_counter() - start)
        time.sleep(0.05)  # threads that spin for a while after the last run are not counted as idle
        idle_from = time.process_time()
        print(json.dumps({"seconds": seconds, "idle_cpu": idle}), flush=True)
    return None


if __name__ == "__main__":
    main()
