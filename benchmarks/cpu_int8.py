"""Where INT8's time goes on this CPU: the same ResNet-50 graph in ONNX Runtime and OpenVINO, on one thread and on all.

    python benchmarks/peers.py          # once: it builds the engines, and OpenVINO's own INT8 by NNCF
    python benchmarks/cpu_int8.py [--rounds 25] [-o benchmarks/results/cpu_int8.json]

Two tables. The first times each library, and each setting of ONNX Runtime that could bring the work of several threads nearer
together, in shuffled rounds. The second is ONNX Runtime's own profile, by operator and by stage of the network, on one thread and
on all: how much of the work the threads really share.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

import msgspec
import numpy as np
import onnxruntime
from peers import SCRATCH, Array
from rich.console import Console
from rich.table import Table
from side_by_side import calls, side_by_side

from toolkit import cpu
from toolkit.disk.files import write_atomically
from toolkit.harness.environment import read_environment

MODEL = SCRATCH / "resnet50-int8" / "model.onnx"
NNCF = SCRATCH / "openvino-int8.xml"
CALLS = 8  # in each turn, after one that does not count
TRIED = {
    "as built": {},
    "work in smaller shares (dynamic_block_base 4)": {"session.dynamic_block_base": "4"},
    "in smaller still (16)": {"session.dynamic_block_base": "16"},
    "second thread pinned": {"session.intra_op_thread_affinities": "2"},
}
Run = Callable[[Array], Any]


def session(threads: int, entries: dict[str, str], profile: str | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def with_onnxruntime(threads: int, **entries: str) -> Run:
    live = session(threads, entries)
    name = live.get_inputs()[0].name
    return lambda image: live.run(None, {name: image})


def with_openvino(model: Path, threads: int) -> Run:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(model, "CPU", hints)  # type: ignore[no-any-return]


def contestants(cores: int) -> dict[str, Run]:
    found = {"ONNX Runtime, 1 thread": with_onnxruntime(1)}
    if cores > 1:
        found |= {f"ONNX Runtime, {cores} threads, {words}": with_onnxruntime(cores, **entry) for words, entry in TRIED.items()}
    try:
        for threads in sorted({1, cores}):
            found[f"OpenVINO, the same graph, {threads} threads"] = with_openvino(MODEL, threads)
            if NNCF.exists():
                found[f"OpenVINO, NNCF's graph, {threads} threads"] = with_openvino(NNCF, threads)
    except ImportError:
        print("OpenVINO is left out: pip install 'resnet-deploy[openvino]'")
    return found


def timed(runs: dict[str, Run], image: Array, rounds: int) -> dict[str, list[int]]:
    """name -> nanoseconds of every call; in each round each takes a turn, in an order drawn anew."""
    turns = {name: partial(calls, partial(run, image), CALLS, lead=1) for name, run in runs.items()}
    return {name: [ns for turn in kept for ns in turn] for name, kept in side_by_side(turns, rounds, warmup=0).items()}


def profile(threads: int, image: Array, runs: int = 60) -> dict[str, float]:
    """Operator and stage -> microseconds of an inference: the sum over nodes of the median over runs."""
    with tempfile.TemporaryDirectory() as folder:
        live = session(threads, {}, str(Path(folder) / "profile"))
        for _ in range(runs):
            live.run(None, {live.get_inputs()[0].name: image})
        events = json.loads(Path(live.end_profiling()).read_text())
    nodes: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"])
    found: dict[str, float] = {}
    for (operator, name), times in nodes.items():
        stage = re.match(r"(layer\d|conv1|fc)", name)
        where = f"{operator}, {stage[1]}" if stage and operator.startswith("QLinear") else "all else"
        found[where] = found.get(where, 0.0) + float(np.median(times))
    return found


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=25)
    ask.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "cpu_int8.json")
    given = ask.parse_args()
    if not MODEL.exists():
        raise SystemExit("there is no ResNet-50 to time: run benchmarks/peers.py first")
    image = np.load(SCRATCH / "evaluation.npy", mmap_mode="r")[:1].copy()
    cores = cpu.cores()
    samples = timed(contestants(cores), image, given.rounds)
    times = Table("ResNet-50 INT8, batch 1", "p10 ms", "p50 ms")
    for name, values in samples.items():
        times.add_row(name, *(f"{np.quantile(values, q) * 1e-6:.2f}" for q in (0.1, 0.5)))
    one, all_ = profile(1, image), profile(cores, image)
    parts = Table("ONNX Runtime's profile", "1 thread, us", f"{cores} threads, us", "times as fast")
    for name in one:
        parts.add_row(name, f"{one[name]:.0f}", f"{all_[name]:.0f}", f"{one[name] / all_[name]:.2f}")
    console = Console(width=110)
    console.print(times)
    console.print(parts)
    record = {"environment": msgspec.to_builtins(read_environment()), "samples_ns": samples}
    record["profile_us"] = {"1": one, str(cores): all_}
    write_atomically(given.output, json.dumps(record, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
