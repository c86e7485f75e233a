"""Soak: `python -m tests.faults.soak --calls 1000000 -o soak.json`, a million calls, and what they leave behind;
`--minutes 60` goes on for an hour.

Eight threads call one runner with batches of changing sizes, by a seeded dice; now and then one opens the engine's folder, asks
it and closes it; the runner is replaced by the other of two engines under their hands, and the folder is exchanged on disk.
Every answer is compared with what one of the two engines gives, whole: an answer of both is a fault. Between a hundred rounds
nothing runs, and memory, descriptors and threads are counted; the table shows ten of them. Exit code 1 where one grows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import msgspec
import numpy as np

import toolkit
from tests.fuzz.engines import tiny
from toolkit.disk.folders import new_folder
from toolkit.runtime.batcher import Batcher
from toolkit.runtime.runner import Runner
from toolkit.types import Float

OPERATORS = ("ReduceMean", "ReduceMax")
IMAGES = np.random.default_rng(0).random((256, 3, 8, 8), np.float32)
SIZES = (1, 1, 1, 2, 3, 4, 5, 8, 16, 17, 31, 64, 65, 200)
MEMORY = 24 << 20  # bytes that may come on top after the first third: arenas of threads, and what ONNX Runtime keeps


class Sample(msgspec.Struct):
    """What the process holds after so many calls; `memory` in bytes."""

    seconds: float
    calls: int
    memory: int
    descriptors: int
    threads: int


class Soak(msgspec.Struct):
    samples: list[Sample]
    calls: int
    opened: int
    replaced: int
    batched: int
    faults: list[str]

    def grown(self) -> list[str]:
        """What grew, in words: descriptors and threads by one are a leak, for nothing runs while they are counted."""
        first, last = self.samples[len(self.samples) // 4], self.samples[-1]
        found = [
            f"{name}: {getattr(first, name)} -> {getattr(last, name)}"
            for name in ("descriptors", "threads")
            if getattr(last, name) > getattr(first, name)
        ]
        if last.memory > first.memory + MEMORY:
            found.append(f"memory: {first.memory >> 20} -> {last.memory >> 20} MiB")
        return found


def soak(calls: int, threads: int = 8, seed: int = 0, rounds: int = 100, seconds: float = 0.0) -> Soak:
    """Runs it, in a folder of its own, for so many calls and so long; after each round no thread runs, and a sample is taken."""
    found = Soak([], 0, 0, 0, 0, [])
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        engines = [tiny(Path(place, operator), operator) for operator in OPERATORS]
        standing = Path(place, "engine")
        _exchange(engines[0], standing)
        right = []
        for engine in engines:
            with toolkit.load(engine) as alone:
                right.append(alone(IMAGES))
        runner = stack.enter_context(toolkit.load(engines[0]))
        batcher = stack.enter_context(Batcher(runner, max_batch=16, max_wait=0.0005))
        begun, before = time.monotonic(), len(os.listdir("/proc/self/task"))
        for number in count():
            _round(f"{seed} {number}", calls * (number + 1) // rounds, threads, runner, batcher, engines, standing, right, found)
            _wait_for_threads(found.samples[0].threads if found.samples else before)
            found.samples.append(_sample(time.monotonic() - begun, found.calls))
            if found.faults or (number + 1 >= rounds and time.monotonic() - begun >= seconds):
                break
    return found


def _round(
    seed: str,
    until: int,
    threads: int,
    runner: Runner,
    batcher: Batcher,
    engines: list[Path],
    standing: Path,
    right: list[Float],
    found: Soak,
) -> None:
    lock, stop = threading.Lock(), threading.Event()

    def work(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        while not stop.is_set():
            try:
                fault = _once(dice, runner, batcher, standing, right, found, lock)
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            with lock:
                found.calls += 1
                found.faults += [fault] if fault else []
                if found.calls >= until or found.faults:
                    stop.set()

    def swap() -> None:
        while True:
            found.replaced += 1
            runner.replace(toolkit.load(engines[found.replaced % 2]))
            _exchange(engines[found.replaced % 2], standing)
            if stop.wait(0.05):
                return

    crew = [threading.Thread(target=work, args=(number,)) for number in range(threads)] + [threading.Thread(target=swap)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def _once(
    dice: random.Random, runner: Runner, batcher: Batcher, standing: Path, right: list[Float], found: Soak, lock: threading.Lock
) -> str | None:
    """One call, of whatever kind; what is wrong with its answer."""
    size, kind = dice.choice(SIZES), dice.random()
    start = dice.randrange(len(IMAGES) - size)
    if kind < 0.002:
        with toolkit.load(standing) as own:
            answer = own(IMAGES[start : start + size])
        with lock:
            found.opened += 1
    elif kind < 0.1:
        size = 1
        answer = batcher.submit(IMAGES[start]).result(60)[None]
        with lock:
            found.batched += 1
    else:
        answer = runner(IMAGES[start : start + size])
    if any(np.array_equal(answer, one[start : start + size]) for one in right):
        return None
    return f"a batch of {size} was answered by neither engine alone"


def _exchange(engine: Path, standing: Path) -> None:
    with new_folder(standing) as draft:
        for path in engine.iterdir():
            (draft / path.name).write_bytes(path.read_bytes())


def _wait_for_threads(count: int) -> None:
    """A thread that was joined is still the system's for a moment."""
    end = time.monotonic() + 5
    while time.monotonic() < end and len(os.listdir("/proc/self/task")) > count:
        time.sleep(0.01)


def _sample(seconds: float, calls: int) -> Sample:
    status = Path("/proc/self/status").read_text()
    told = {line.partition(":")[0]: line.split()[1] for line in status.splitlines() if ":" in line and len(line.split()) > 1}
    return Sample(seconds, calls, int(told["VmRSS"]) << 10, len(os.listdir("/proc/self/fd")), int(told["Threads"]))


def table(found: Soak) -> str:
    rows = [f"{'seconds':>9}{'calls':>10}{'MiB':>8}{'files':>7}{'threads':>9}"]
    for sample in found.samples[:: max(1, len(found.samples) // 10)] + found.samples[-1:]:
        rows.append(
            f"{sample.seconds:9.1f}{sample.calls:10d}{sample.memory / 2**20:8.1f}{sample.descriptors:7d}{sample.threads:9d}"
        )
    rows.append(f"{found.calls} calls, {found.batched} of them batched, {found.opened} opened, {found.replaced} replaced")
    return "\n".join([*rows, *(f"fault: {fault}" for fault in found.faults[:20])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with further rounds until these have passed as well")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("soak.json"))
    given = parser.parse_args()
    found = soak(given.calls, given.threads, given.seed, seconds=60 * given.minutes)
    given.output.write_text(json.dumps(msgspec.to_builtins(found), indent=1) + "\n")
    print(table(found))
    grown = found.grown()
    print("\n".join(f"grew: {what}" for what in grown) or "nothing grew")
    sys.exit(1 if grown or found.faults else 0)


if __name__ == "__main__":
    main()
