"""Does our closed loop agree with MLPerf LoadGen's SingleStream? The same engine and input, in turns, medians within 3 %.

In SingleStream the next query waits for the last answer, so the engine answers in LoadGen's own thread: nothing to hand on.
Engines run on one thread: LoadGen writes its log from a thread of its own, which would take a core from an engine on two. A
turn of ours and one of LoadGen's follow each other at once; what is judged is the median of their ratios.

    python benchmarks/loadgen.py [--built engines/built] [--seconds 0.5] [--turns 20] [-o benchmarks/results/loadgen.json]
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from needed import need
from rich.console import Console
from rich.table import Table

from toolkit.disk.files import write_atomically
from toolkit.engine import engine
from toolkit.harness.environment import read_environment
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.loadgen import run_loadgen
from toolkit.harness.run import entries_of

ENGINES = ("fashion-resnet18-fp32", "fashion-resnet50-fp32")
BATCHES = (8, 32)  # images a query: LoadGen's own 9 us a query must be small against the engine's time


def answer(entry: Contender) -> Any:
    """LoadGen's query, answered on the spot."""

    def submit(_: int) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(entry.call())
        return done

    return submit


def both(entry: Contender, seconds: float, turns: int) -> dict[str, list[float]]:
    """Median seconds of each turn, ours and LoadGen's, one after the other."""
    found: dict[str, list[float]] = {"ours": [], "loadgen": []}
    plan = Sampling(seconds=seconds, precision=-1.0, warmup=1, yardstick=False, most_blocks=10_000)
    for turn in range(turns):
        seeded = msgspec.structs.replace(plan, seed=turn)
        [ours] = measure_latency([entry._replace(reopen=None)], seeded)
        theirs = run_loadgen("single-stream", answer(entry), entry, images=64, seconds=seconds, rate=1.0, seed=turn)
        for name, measured in (("ours", ours), ("loadgen", theirs)):
            found[name].append(float(np.median(measured.seconds)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--built", type=Path, default=Path("engines/built"))
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/loadgen.json"))
    arguments = parser.parse_args()
    need(arguments.built, ENGINES)
    table = Table("engine", "images a query", "ours, p50", "LoadGen SingleStream, p50", "difference", "")
    record: dict[str, Any] = {"environment": msgspec.to_builtins(read_environment())}
    for entry in entries_of({name: engine.load(arguments.built / name, threads=1) for name in ENGINES}, BATCHES):
        found = record[entry.label] = both(entry, arguments.seconds, arguments.turns)
        ours, theirs = (float(np.median(found[name])) for name in ("ours", "loadgen"))
        difference = float(np.median(np.array(found["loadgen"]) / found["ours"])) - 1
        word = "[green]agree" if abs(difference) <= 0.03 else "[red]differ"
        shown = f"{ours * 1e3:.3f} ms", f"{theirs * 1e3:.3f} ms", f"{difference:+.2%}"
        table.add_row(entry.engine, str(entry.batch), *shown, word)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.output, json.dumps(record, indent=1).encode() + b"\n")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
