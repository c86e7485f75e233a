"""Offline: all images are there from the start; what counts is images a second. Searches the best batch and stream count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from toolkit.harness.energy import Meter
from toolkit.harness.environment import now
from toolkit.harness.lane import Contender
from toolkit.harness.measurement import Block, Measurement
from toolkit.types import Progress

AtBatch = Callable[[int], Contender]


class _Streams:
    """Threads that call at once, from the same moment on."""

    def __init__(self, entry: Contender, count: int, seconds: float) -> None:
        self.entry, self.seconds = entry, seconds
        self.samples: list[list[int]] = [[] for _ in range(count)]
        self.warmup: list[int] = []
        self.failures: list[str] = []
        self.gate = threading.Barrier(count + 1)
        self.ends = [0] * count

    def run(self) -> int:
        """Run all to their end; the start, in nanoseconds."""
        threads = [threading.Thread(target=self._stream, args=(i,), daemon=True) for i in range(len(self.ends))]
        for thread in threads:
            thread.start()
        with suppress(threading.BrokenBarrierError):  # the failure is recorded
            self.gate.wait()
        start = time.perf_counter_ns()
        for thread in threads:
            thread.join()
        return start

    def _stream(self, index: int) -> None:
        call, own = self.entry.call, self.samples[index]
        try:
            begin = time.perf_counter_ns()
            call()
            self.warmup.append(time.perf_counter_ns() - begin)
            self.gate.wait()
            begin = start = time.perf_counter_ns()
            while begin - start < self.seconds * 1e9 or len(own) < 2:
                call()
                end = time.perf_counter_ns()
                own.append(end - begin)
                begin = self.ends[index] = end
        except threading.BrokenBarrierError:
            return  # another stream failed before the start
        except Exception as error:  # whatever a backend raises ends the trial, with what it has
            self.failures.append(f"{self.entry.engine} failed: {type(error).__name__}: {error}")
            self.gate.abort()


def closed_loop(entry: Contender, streams: int, seconds: float, *, meter: Meter | None = None) -> Measurement:
    """`streams` threads, each calling again as soon as it is answered, for `seconds` and until each has answered twice.

    A call counts as a sample, a stream as a block. The first call of each stream is warm-up.
    """
    trial = _Streams(entry, streams, seconds)
    before = meter.read() if meter else None
    start = trial.run()
    after = meter.read() if meter else None
    return Measurement(
        engine=entry.engine,
        precision=entry.precision,
        target=entry.target,
        batch=entry.batch,
        clock=entry.clock,
        scenario="offline",
        started=now(),
        blocks=tuple(Block(at_ns=0, samples_ns=tuple(own)) for own in trial.samples if own),
        warmup_ns=tuple(trial.warmup),
        images=entry.batch * sum(map(len, trial.samples)),
        duration_ns=max(max(trial.ends) - start, 0),
        streams=streams,
        joules=meter.between(before, after) if meter else None,
        failure=trial.failures[0] if trial.failures else None,
    )


def find_throughput(
    at_batch: AtBatch,
    batches: Sequence[int],
    streams: Sequence[int],
    seconds: float,
    *,
    meter: Meter | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """First the best batch with one stream, then the best stream count at that batch. All trials are given back."""
    total = len(batches) + len(streams) - 1
    found: list[Measurement] = []
    for batch in batches:
        found.append(closed_loop(at_batch(batch), 1, seconds, meter=meter))
        if progress:
            progress(len(found), total)
    best = best_throughput(found)
    for count in streams:
        if best is None:
            break
        if count != 1:
            found.append(closed_loop(at_batch(best.batch), count, seconds, meter=meter))
            if progress:
                progress(len(found), total)
    return found


def best_throughput(measurements: Sequence[Measurement]) -> Measurement | None:
    """The trial with the most images a second; None where none was answered."""
    good = [m for m in measurements if m.scenario == "offline" and m.throughput and m.failure is None]
    return max(good, key=lambda m: m.throughput or 0.0, default=None)
