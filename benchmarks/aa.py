"""How often does `toolkit compare` cry wolf, and how often does it see one? 100 A/A pairs and 100 real slowdowns of 10 %.

Every run is a process of its own with real engines, measured as `toolkit bench --threads 1` measures: that is how a gate on a
shared machine should. `--threads 0` leaves the engines as they were built. A slowed run has each call keep its thread busy for
another 10 % of the time that call took. Writes a table and the raw blocks:

    python benchmarks/aa.py [--repeats 100] [--threads 1] [-o benchmarks/results/aa.json]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from needed import need

from toolkit.disk.files import write_atomically
from toolkit.engine import engine
from toolkit.harness.compare import LEVEL, TOLERANCE, Comparison, compare
from toolkit.harness.conditions import Monitor
from toolkit.harness.environment import read_environment
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.results import Results
from toolkit.harness.run import entries_of
from toolkit.harness.yardstick import Yardstick
from toolkit.measure import handoff

ENGINES = ("fashion-resnet18-fp32", "fashion-resnet50-fp32")
BLOCKS, ANY = 40, 1.0  # a run ends with so many blocks, whatever the interval


def slowed(call: Any, share: float) -> Any:
    """`call`, and then busy for `share` of the time it took."""

    def run() -> Any:
        begin = time.perf_counter_ns()
        answer = call()
        end = time.perf_counter_ns()
        until = end + (end - begin) * share
        while time.perf_counter_ns() < until:
            pass
        return answer

    return run


def one_run(built: Path, out: Path, seconds: float, threads: int, slow: float, seed: int) -> None:
    """Measure the engines for `seconds`; the first is slowed by `slow`."""
    runners = {name: engine.load(built / name, threads=threads or None) for name in ENGINES}
    manifests = {name: runner.manifest for name, runner in runners.items()}
    entries = entries_of(runners, (1,))
    if slow:
        entries[0] = entries[0]._replace(call=slowed(entries[0].call, slow))
    plan = Sampling(seconds=seconds, warmup=1, precision=ANY, turn=0.01, least_blocks=BLOCKS, seed=seed)
    watch = Monitor()
    yardstick = Yardstick(handoff(list(manifests.values())))
    measured = tuple(measure_latency(entries, plan, monitor=watch, yardstick=yardstick))
    moments = tuple(watch.moments)
    results = Results(
        environment=read_environment(),
        measurements=measured,
        moments=moments,
        yardstick=yardstick.card,
        manifests={name: msgspec.to_builtins(manifest) for name, manifest in manifests.items()},
    )
    results.write(out)


def spawn(arguments: argparse.Namespace, out: Path, slow: float, seed: int) -> Results:
    """One run in a process of its own."""
    command = [sys.executable, __file__, "--built", str(arguments.built), "--seconds", str(arguments.seconds)]
    command += ["--threads", str(arguments.threads), "--one", str(out), "--slow", str(slow), "--seed", str(seed)]
    subprocess.run(command, check=True)
    return Results.read(out)


def blocks(results: Results) -> dict[str, list[list[int]]]:
    """Per engine and block: 10th percentile and median of its samples, fastest yardstick (ns), hand-off (1/1000), launch."""
    return {
        m.engine: [
            [*np.quantile(b.samples_ns, [0.1, 0.5]).astype(int).tolist(), min(b.yardstick_ns), permille(b.handoff), b.launch]
            for b in m.blocks
        ]
        for m in results.measurements
    }


def permille(handoff: tuple[float, ...]) -> int:
    return round(1000 * max(handoff, default=0))


def row(comparison: Comparison) -> list[list[Any]]:
    """[engine, word, change, low, high, p] of each difference; no figures where nothing can be told."""
    return [
        [d.engine, d.word, *(round(x, 5) if math.isfinite(x) else None for x in (d.change, d.low, d.high)), d.p]
        for d in comparison.differences
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="a run may take at most so long")
    parser.add_argument("--threads", type=int, default=1, help="0: as the engines were built")
    parser.add_argument("--built", type=Path, default=Path("engines/built"))
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/aa.json"))
    parser.add_argument("--one", type=Path)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.one:
        one_run(arguments.built, arguments.one, arguments.seconds, arguments.threads, arguments.slow, arguments.seed)
        return
    need(arguments.built, ENGINES)
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.json"
        for repeat in range(arguments.repeats):
            old, new, slow = (spawn(arguments, out, share, 3 * repeat + i) for i, share in enumerate((0.0, 0.0, 0.1)))
            rows.append({"aa": row(compare(old, new)), "slowed": row(compare(old, slow))})
            raw.append({"old": blocks(old), "new": blocks(new), "slowed": blocks(slow)})
            print(f"\r{repeat + 1}/{arguments.repeats}: {summary(rows)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    record = {
        "what": "A/A and injected 10 % slowdown of the first engine",
        "block": ["10th percentile, ns", "median, ns", "fastest yardstick, ns", "hand-off, thousandths", "launch"],
        "environment": msgspec.to_builtins(old.environment),
        "tolerance": TOLERANCE,
        "level": LEVEL,
        "threads": arguments.threads,
        "summary": summary(rows),
        "rows": rows,
        "raw": raw,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.output, json.dumps(record, separators=(",", ":")).encode() + b"\n")
    alarms, found, stray, unknown = counts(rows)
    print(f"A/A pairs with an alarm      {alarms:4d} of {len(rows)}  (wanted: at most 5 of 100)")
    print(f"10 % slowdowns found         {found:4d} of {len(rows)}  (wanted: at least 95 of 100)")
    print(f"alarms on the other engine   {stray:4d} of {len(rows)}")
    print(f"slowdowns that cannot be told{unknown:4d} of {len(rows)}")
    apart = np.abs([r[2] for pair in rows for r in pair["aa"] if r[2] is not None])
    half, most = np.quantile(apart, [0.5, 0.9])
    print(f"two equal runs differ by less than {half:.1%} in half of the cases, {most:.1%} in 9 of 10")


def counts(rows: list[dict[str, Any]]) -> tuple[int, int, int, int]:
    """Pairs with any alarm, slowdowns found, alarms on the engine that was not slowed, slowdowns that cannot be told."""
    alarms = sum(any(r[1] == "slower" for r in pair["aa"]) for pair in rows)
    slowed, other = zip(*(pair["slowed"] for pair in rows), strict=True)
    words = [r[1] for r in slowed]
    return alarms, words.count("slower"), sum(r[1] == "slower" for r in other), words.count("cannot tell")


def summary(rows: list[dict[str, Any]]) -> str:
    alarms, found, stray, unknown = counts(rows)
    return f"{alarms} false alarms, {found} slowdowns found, {stray} strays, {unknown} not told, of {len(rows)}"


if __name__ == "__main__":
    main()
