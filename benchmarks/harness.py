"""Is the harness itself to be trusted? Four proofs on this machine, with real time and real engines:

1. timing adds less than 2 us to a sample;
2. an engine's median taken in shuffled rounds with others agrees with its median taken alone, within 3 %;
3. a runner with known latencies (it sleeps for times drawn beforehand, and notes what it really took) is measured to 1 % at
   p50 and 5 % at p99, closed loop;
4. and the same in an open loop with a queue: against the runner's own note of when it answered, and against the recursion
   that says what each image had to take.

    python benchmarks/harness.py [--built engines/built] [--seconds 3] [-o benchmarks/results/harness.json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from needed import need
from rich.console import Console
from rich.table import Table
from side_by_side import median_interval

from toolkit.cpu import cores
from toolkit.disk.files import write_atomically
from toolkit.engine import engine
from toolkit.harness.environment import read_environment
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, cost_of_timing, measure_latency
from toolkit.harness.measurement import Measurement
from toolkit.harness.run import entries_of
from toolkit.harness.server import arrivals, open_loop
from toolkit.harness.yardstick import Yardstick
from toolkit.measure import handoff
from toolkit.recipe import Recipe
from toolkit.reference.runner import open_reference
from toolkit.runtime.batcher import Batcher

ENGINES = ("fashion-resnet18-fp32", "fashion-resnet18-int8", "fashion-resnet50-fp32")
NEVER = -1.0  # a precision that no engine reaches: measure for the whole time


def wait(seconds: float) -> float:
    """Sleep; the seconds that it really took. A sleep gives the interpreter to other threads, as an engine does."""
    begin = time.perf_counter_ns()
    time.sleep(seconds)
    return (time.perf_counter_ns() - begin) * 1e-9


def drawn(count: int, scale: float) -> np.ndarray:
    return scale * np.random.default_rng(0).lognormal(0, 0.4, count)


def closed(seconds: float) -> list[tuple[str, float, float]]:
    """(quantile, injected, measured) of a closed loop on known latencies of 4 ms in the middle."""
    times = drawn(100_000, 0.004)
    used: list[float] = []

    def call() -> Any:
        used.append(wait(float(times[len(used)])))

    plan = Sampling(seconds=seconds, precision=NEVER, warmup=1, turn=0.1, yardstick=False, most_blocks=10_000)
    [found] = measure_latency([Contender("known", 1, call, logits=False)], plan)
    # what was measured is all but the warm-up and the first call of each turn; the distribution is the same
    return [(f"p{100 * q:g}", float(np.quantile(used, q)), float(np.quantile(found.seconds, q))) for q in (0.5, 0.99)]


def opened(seconds: float, load: float, scale: float, truth: str) -> list[tuple[str, float, float]]:
    """The same for an open loop at `load` of what the runner can do, one image of `scale` seconds at a time.

    `truth` "answered": the runner's own note of when it answered, less the arrival as scheduled. `truth` "drawn": what the
    recursion of a queue (first come, first served) makes of the arrivals and the times that were slept; it leaves out what
    the batcher takes for each image, which a fuller queue multiplies.
    """
    rate = load / (scale * float(np.exp(0.4**2 / 2)))
    schedule = arrivals(rate, seconds, 0) * 1e-9
    times, used, ends, reads = drawn(len(schedule), scale), list[float](), list[int](), list[int]()

    def run(batch: Any) -> Any:
        used.append(wait(float(times[len(used)])))
        ends.append(time.perf_counter_ns())
        return batch

    def ticks() -> int:
        reads.append(time.perf_counter_ns())
        return reads[-1]

    with Batcher(run, max_batch=1, max_wait=0.0) as batcher:
        image, entry = np.zeros(1, np.float32), Contender("known", 1, lambda: None)
        found = open_loop(lambda index: batcher.submit(image), entry, rate, seconds, bound=10.0, ticks=ticks)
    expected, free = [], 0.0
    for arrival, service, end in zip(schedule, used, ends, strict=True):
        free = max(free, arrival) + service if truth == "drawn" else (end - reads[0]) * 1e-9
        expected.append(free - arrival)
    return [(f"p{100 * q:g}", float(np.quantile(expected, q)), float(np.quantile(found.seconds, q))) for q in (0.5, 0.99)]


def rounds(built: Path, seconds: float, repeats: int) -> dict[str, dict[str, list[float]]]:
    """engine -> medians in seconds of every repeat, taken alone and in rounds, one right after the other."""
    runners = {name: engine.load(built / name) for name in ENGINES}
    recipe = msgspec.convert(runners[ENGINES[0]].manifest.recipe, Recipe)
    yardstick = Yardstick(handoff([runner.manifest for runner in runners.values()]))
    runners["PyTorch"] = open_reference(recipe, cores())  # a neighbor with threads of its own
    entries = [entry._replace(reopen=None) for entry in entries_of(runners, (1,))]
    raw: dict[str, dict[str, list[float]]] = {name: {"alone": [], "in rounds": []} for name in runners}
    plan = Sampling(seconds=seconds, precision=NEVER, warmup=1, most_blocks=10_000)
    for repeat in range(repeats):
        seeded = msgspec.structs.replace(plan, seed=repeat)
        for entry in entries:
            [found] = measure_latency([entry], seeded, yardstick=yardstick)
            raw[entry.engine]["alone"].append(near(found))
        longer = msgspec.structs.replace(seeded, seconds=seconds * len(entries))
        for found in measure_latency(entries, longer, yardstick=yardstick):
            raw[found.engine]["in rounds"].append(near(found))
    return raw


def near(found: Measurement) -> float:
    """The median over blocks that were taken while the cores were close to each other; NaN without any."""
    kept = [sample for block in found.blocks if block.near for sample in block.samples_ns]
    return float(np.median(kept)) * 1e-9 if kept else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--built", type=Path, default=Path("engines/built"))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/harness.json"))
    arguments = parser.parse_args()
    need(arguments.built, ENGINES)
    table = Table("proof", "expected", "measured", "difference", "allowed", "")
    record: dict[str, Any] = {"environment": msgspec.to_builtins(read_environment())}
    cost = float(np.median([cost_of_timing() for _ in range(5)]))
    record["cost_of_timing_s"] = cost
    table.add_row("cost of timing a sample", "", f"{cost * 1e6:.2f} us", "", "2 us", word(cost < 2e-6))
    record["rounds"] = rounds(arguments.built, arguments.seconds / 3, 15)
    for name, raw in record["rounds"].items():
        alone, together = (np.array(raw[how]) for how in ("alone", "in rounds"))
        span = interval(together / alone - 1)
        add(table, f"{name}: alone, in rounds", float(np.nanmedian(alone)), float(np.nanmedian(together)), 0.03, span)
    loops: list[tuple[str, Callable[[], list[tuple[str, float, float]]]]] = [
        ("closed loop", lambda: closed(10 * arguments.seconds)),
        ("open loop, 50 % load, as answered", lambda: opened(10 * arguments.seconds, 0.5, 0.02, "answered")),
        ("open loop, 80 % load, as answered", lambda: opened(10 * arguments.seconds, 0.8, 0.02, "answered")),
        ("open loop, 50 % load, as drawn", lambda: opened(20 * arguments.seconds, 0.5, 0.1, "drawn")),
    ]
    for name, loop in loops:
        record[name] = loop()
        for quantile, injected, measured in record[name]:
            add(table, f"{name}, {quantile}", injected, measured, 0.01 if quantile == "p50" else 0.05)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.output, json.dumps(record, indent=1).encode() + b"\n")
    Console(width=120).print(table)


def interval(differences: np.ndarray) -> str:
    low, high = median_interval(differences)
    return f" [{low:+.1%}, {high:+.1%}]"


def add(table: Table, what: str, expected: float, measured: float, allowed: float, span: str = "") -> None:
    difference = measured / expected - 1
    shown = f"{expected * 1e3:.3f} ms", f"{measured * 1e3:.3f} ms", f"{difference:+.2%}{span}", f"{allowed:.0%}"
    table.add_row(what, *shown, word(abs(difference) <= allowed))


def word(good: bool) -> str:
    return "[green]holds" if good else "[red]fails"


if __name__ == "__main__":
    main()
