"""Offline and server on a live runner: who issues the queries (LoadGen, or our own loop), the search, and the final trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from toolkit.harness.conditions import Monitor
from toolkit.harness.energy import Meter
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling
from toolkit.harness.loadgen import run_loadgen
from toolkit.harness.measurement import Measurement
from toolkit.harness.offline import best_throughput, find_throughput
from toolkit.harness.server import Submit, find_rate, open_loop
from toolkit.harness.stability import flags_of
from toolkit.runtime.batcher import Batcher
from toolkit.runtime.runner import Runner
from toolkit.types import Array, Progress

STREAMS = (1, 2, 4)
SEARCH = 0.4  # of the plan's time goes into the search of batch and streams
TRIALS = 7


class Load(NamedTuple):
    """One engine and how it is to be loaded. `bound` in seconds; `loadgen`: MLPerf LoadGen issues the queries."""

    name: str
    runner: Runner
    inputs: Array  # images to ask about, [n, ...]; n >= every batch
    batches: Sequence[int]
    plan: Sampling
    bound: float
    loadgen: bool
    meter: Meter | None
    monitor: Monitor

    def entry(self, batch: int) -> Contender:
        some, manifest = self.inputs[:batch], self.runner.manifest
        return Contender(self.name, batch, lambda: self.runner(some), manifest.precision, manifest.target)

    def submit(self, batcher: Batcher) -> Submit:
        return lambda index: batcher.submit(self.inputs[index % len(self.inputs)])

    def search(self, progress: Progress | None) -> list[Measurement]:
        seconds = self.plan.seconds * SEARCH / (len(self.batches) + len(STREAMS))
        return find_throughput(self.entry, self.batches, STREAMS, seconds, meter=self.meter, progress=progress)

    def flagged(self, found: Sequence[Measurement]) -> list[Measurement]:
        self.monitor.look()
        return [m.flagged(flags_of(m, self.monitor.moments)) for m in found]


def run_offline(load: Load, progress: Progress | None = None) -> list[Measurement]:
    """Every trial of the search; with `loadgen` the best setting again as MLPerf's Offline."""
    found = load.search(progress)
    best = best_throughput(found)
    if load.loadgen and best is not None and best.throughput:
        with Batcher(load.runner, max_batch=best.batch, max_wait=0.0, workers=best.streams) as batcher:
            final = run_loadgen(
                "offline",
                load.submit(batcher),
                load.entry(best.batch),
                images=len(load.inputs),
                seconds=load.plan.seconds * (1 - SEARCH),
                rate=best.throughput,
                seed=load.plan.seed,
            )
        found.append(msgspec.structs.replace(final, streams=best.streams))
    return load.flagged(found)


def run_server(load: Load, progress: Progress | None = None) -> list[Measurement]:
    """Open-loop trials that close in on the highest rate with p99 under `bound`, behind a Batcher."""
    found = load.search(None)
    # a batch that takes more than half of the bound leaves no room for the wait before it
    best = best_throughput([m for m in found if len(m.seconds) and m.seconds.mean() < load.bound / 2] or found[:1])
    if best is None or not best.throughput:
        return load.flagged(found)
    entry, wait = load.entry(best.batch), load.bound / 8

    def trial(rate: float, seconds: float) -> Measurement:
        with Batcher(load.runner, max_batch=best.batch, max_wait=wait, workers=best.streams) as batcher:
            submit, seed = load.submit(batcher), load.plan.seed
            if load.loadgen:
                count, bound = len(load.inputs), load.bound
                measured = run_loadgen("server", submit, entry, images=count, seconds=seconds, rate=rate, bound=bound, seed=seed)
            else:
                measured = open_loop(submit, entry, rate, seconds, bound=load.bound, seed=seed)
        load.monitor.look()
        settings = {**measured.settings, "max_batch": best.batch, "max_wait_s": wait}
        return msgspec.structs.replace(measured, streams=best.streams, settings=settings)

    seconds = load.plan.seconds * (1 - SEARCH) / TRIALS
    return load.flagged(find_rate(trial, best.throughput, seconds, trials=TRIALS, progress=progress))
