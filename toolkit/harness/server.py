"""Server: an open loop. Images arrive by a Poisson process whether or not the engine keeps up, and each answer's latency
counts from the arrival as scheduled: a queue that builds up is seen, where a closed loop would wait politely and hide it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.harness.environment import now
from toolkit.harness.lane import Contender, Ticks
from toolkit.harness.measurement import Block, Flag, Measurement, Scenario
from toolkit.harness.statistics import quantile
from toolkit.types import Progress

Submit = Callable[[int], "Future[Any]"]  # the image's number -> its answer
Trial = Callable[[float, float], Measurement]  # rate, seconds -> one open-loop trial


def arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.int64]:
    """Scheduled arrivals in nanoseconds from the start: gaps are exponential with mean 1/rate; at least one."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1e9 / rate, size=max(1, round(rate * seconds)))
    times: NDArray[np.int64] = np.cumsum(gaps).astype(np.int64)
    return times


class _Answered:
    """What came back so far, by the image's place in the schedule."""

    def __init__(self, schedule: NDArray[np.int64], begin: int, ticks: Ticks, give_up_ns: float) -> None:
        self.latencies = np.full(len(schedule), -1, np.int64)
        self.failures: list[str] = []
        self.hopeless = threading.Event()
        self._schedule, self._begin, self._ticks, self._give_up = schedule, begin, ticks, give_up_ns

    def add(self, index: int, answer: Future[Any]) -> None:
        took = self._ticks() - self._begin - int(self._schedule[index])
        if error := answer.exception():
            self.failures.append(f"{type(error).__name__}: {error}")
            self.hopeless.set()
            return
        self.latencies[index] = took
        if took > self._give_up:
            self.hopeless.set()


def open_loop(
    submit: Submit,
    entry: Contender,
    rate: float,
    seconds: float,
    *,
    bound: float,
    seed: int = 0,
    ticks: Ticks = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """One trial at `rate` images a second, with p99 to be held under `bound` seconds.

    It ends early, flagged `overrun`, once an image is answered ten bounds after it arrived: the queue only grows.
    """
    schedule = arrivals(rate, seconds, seed)
    pending: list[Future[Any]] = []
    late, begin = 0, ticks()
    answered = _Answered(schedule, begin, ticks, 10e9 * bound)
    for index, due in enumerate(schedule.tolist()):
        while (left := due - (ticks() - begin)) > 0:
            sleep(left * 1e-9)
        late = max(late, -left)
        if answered.hopeless.is_set():
            break
        answer = submit(index)
        answer.add_done_callback(lambda answer, index=index: answered.add(index, answer))  # type: ignore[misc]
        pending.append(answer)
    for answer in pending:
        answer.exception()  # waits; errors were taken by the callback
    kept = answered.latencies[answered.latencies >= 0]
    over, how = answered.hopeless.is_set(), {"generator_late_ns": int(late)}
    return as_measurement(entry, kept, ticks() - begin, rate, bound, seed, answered.failures, overrun=over, settings=how)


def as_measurement(
    entry: Contender,
    latencies: NDArray[np.int64],
    duration_ns: int,
    rate: float,
    bound: float,
    seed: int,
    failures: list[str],
    *,
    overrun: bool,
    settings: dict[str, Any] | None = None,
    scenario: Scenario = "server",
) -> Measurement:
    """A trial's raw latencies, in the order of arrival, as a Measurement; ten blocks, so that intervals allow for bursts."""
    flags = []
    if overrun and not failures:
        text = f"the queue grew without end at {rate:,.1f} images/s; the trial was stopped"
        flags.append(Flag(trouble="overrun", text=text, remedy="Offer a lower rate"))
    blocks = [part for part in np.array_split(latencies, 10) if len(part)]
    return Measurement(
        engine=entry.engine,
        precision=entry.precision,
        target=entry.target,
        batch=entry.batch,
        clock=entry.clock,
        scenario=scenario,
        started=now(),
        blocks=tuple(Block(at_ns=0, samples_ns=tuple(part.tolist())) for part in blocks),
        images=len(latencies),
        duration_ns=duration_ns,
        offered=rate if scenario == "server" else None,
        bound_ns=round(bound * 1e9) if scenario == "server" else None,
        flags=tuple(flags),
        failure=failures[0] if failures else None,
        seed=seed,
        settings=settings or {},
    )


def holds(measurement: Measurement) -> bool:
    """Whether a trial kept p99 under its bound, with every image answered."""
    if measurement.failure or any(flag.trouble == "overrun" for flag in measurement.flags) or not len(measurement.seconds):
        return False
    return quantile(measurement.seconds, 0.99).value * 1e9 <= (measurement.bound_ns or 0)


def find_rate(
    trial: Trial, guess: float, seconds: float, *, trials: int = 7, progress: Progress | None = None
) -> list[Measurement]:
    """Trials that close in on the highest rate whose p99 keeps its bound; `guess` is a rate that the engine may just reach.

    Steps of 1.6 until one rate holds and another does not, then bisection of their ratio. All trials are given back: the
    answer is the highest `offered` that `holds`, and the lowest that does not bounds it from above.
    """
    found: list[Measurement] = []
    good, bad, rate = 0.0, math.inf, guess * 0.7
    for index in range(trials):
        measured = trial(rate, seconds)
        found.append(measured)
        if progress:
            progress(index + 1, trials)
        if measured.failure:
            break
        if holds(measured):
            good = rate
        else:
            bad = rate
        if good and bad / good < 1.03:
            break
        rate = rate * 1.6 if bad == math.inf else bad / 1.6 if good == 0 else math.sqrt(good * bad)
    if progress:
        progress(trials, trials)
    return found


def best_rate(measurements: Sequence[Measurement]) -> Measurement | None:
    """The trial at the highest rate that kept the bound; None where none did."""
    good = [m for m in measurements if m.scenario == "server" and holds(m)]
    return max(good, key=lambda m: m.offered or 0.0, default=None)
