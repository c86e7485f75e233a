"""Sweep: the batch, the wait and the calls at once that a batcher is set to, measured when the engine is opened.

An engine carries no sweep: the best batch depends on the machine that serves it, and not on the one that built it.
"""

from __future__ import annotations

import numpy as np

from toolkit.harness.batching import Batching
from toolkit.harness.lane import Contender
from toolkit.harness.measurement import Measurement
from toolkit.harness.offline import closed_loop
from toolkit.runtime.runner import Runner
from toolkit.types import noise

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = 0.05  # for each batch in each round; at least two calls, after one that does not count
ROUNDS = 3  # so that what else the machine does for a moment does not decide
CALM = 0.1  # a batch is summarized by this quantile of its calls: another program can only make one longer
NEAR = 0.97  # a smaller batch with so much of the best rate is taken: the same rate within the noise, at less latency
GAIN = 1.05  # twice as many calls at once must bring so much


def sweep(
    runner: Runner, bound: float, batches: tuple[int, ...] = BATCHES, seconds: float = SECONDS, *, most: int = 2
) -> Batching:
    """A batch that takes more than half of `bound` seconds is not tried: it would leave no room for the wait before it. Of calls
    at once no more than `most` are tried, twice as many each time that it pays."""
    calls: dict[int, list[float]] = {batch: [] for batch in batches}
    for _ in range(ROUNDS):
        for batch in list(calls):
            calls[batch] += _measure(runner, batch, 1, seconds).seconds.tolist()
            if batch > 1 and np.quantile(calls[batch], CALM) > bound / 2:
                calls = {size: some for size, some in calls.items() if size < batch}
                break
    times = {batch: float(np.quantile(some, CALM)) for batch, some in calls.items()}
    rates = {batch: batch / time for batch, time in times.items()}
    best = next(batch for batch in rates if rates[batch] >= NEAR * max(rates.values()))
    calls_at_once, top = 1, max(rate(runner, best, 1, seconds) for _ in range(ROUNDS))
    while 2 * calls_at_once <= most:
        more = max(rate(runner, best, 2 * calls_at_once, seconds) for _ in range(ROUNDS))
        if more < GAIN * top:
            break
        calls_at_once, top = 2 * calls_at_once, more
    shown = ", ".join(f"{batch}: {rate:,.0f}" for batch, rate in rates.items())
    return Batching(
        max_batch=max(rates),
        preferred=(best,),
        max_wait=worth_waiting(times[1], times[best] / best),
        instances=calls_at_once,
        measured=True,
        rate=top,
        how=(f"measured at the start, images a second by batch: {shown}",),
    )


def worth_waiting(alone: float, shared: float) -> float:
    """The seconds that an image may wait for others: what it then saves, the time of one alone less its share of a batch.

    Waiting for longer costs the one that waits more than it can save, even where the batch then fills. Under load nothing waits
    for it: while one batch runs, the next one gathers.
    """
    return max(alone - shared, 0.0)


def _measure(runner: Runner, batch: int, streams: int, seconds: float) -> Measurement:
    images = noise(runner.manifest.inputs[0], batch)
    manifest = runner.manifest
    contender = Contender(manifest.name, batch, lambda: runner(images), manifest.precision, manifest.target)
    measured = closed_loop(contender, streams, seconds)
    if measured.failure is not None:
        runner(images)  # raises what failed
    return measured


def rate(runner: Runner, batch: int, streams: int = 1, seconds: float = SECONDS) -> float:
    """Images a second of so many calls at once."""
    return _measure(runner, batch, streams, seconds).throughput or 0.0
