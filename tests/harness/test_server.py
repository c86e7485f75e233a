"""The open loop against queueing theory's own recursion, on simulated time; and the search for the highest rate."""

from __future__ import annotations

import heapq
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from toolkit.harness.lane import Contender
from toolkit.harness.measurement import Measurement
from toolkit.harness.server import arrivals, as_measurement, best_rate, find_rate, holds, open_loop
from toolkit.harness.statistics import quantile

ENTRY = Contender("served", 1, lambda: None)


class Queue:
    """One server, first come first served, in simulated time: it finishes what is due whenever somebody waits."""

    def __init__(self, services: np.ndarray, fail_at: int | None = None) -> None:
        self.now, self.free = 0, 0
        self.services, self.fail_at = services, fail_at
        self.due: list[tuple[int, int, Future[Any]]] = []

    def ticks(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._until(self.now + max(1, round(seconds * 1e9)))

    def submit(self, index: int) -> Future[Any]:
        queue = self

        class Answer(Future):  # type: ignore[type-arg]
            def exception(self, timeout: float | None = None) -> BaseException | None:
                while not self.done():
                    queue._until(queue.due[0][0])
                return super().exception()

        answer = Answer()
        self.free = max(self.free, self.now) + int(self.services[index])
        heapq.heappush(self.due, (self.free, index, answer))
        return answer

    def _until(self, target: int) -> None:
        while self.due and self.due[0][0] <= target:
            end, index, answer = heapq.heappop(self.due)
            self.now = max(self.now, end)
            if index == self.fail_at:
                answer.set_exception(RuntimeError("device lost"))
            else:
                answer.set_result(index)
        self.now = max(self.now, target)


def run(
    rate: float, mean: float, seconds: float = 20, *, bound: float = 1e3, fail_at: int | None = None
) -> tuple[Measurement, np.ndarray]:
    """A trial, and what Lindley's recursion says that each image had to take, in seconds."""
    schedule = arrivals(rate, seconds, 7)
    services = np.random.default_rng(3).exponential(mean * 1e9, len(schedule)).astype(np.int64)
    queue = Queue(services, fail_at)
    found = open_loop(queue.submit, ENTRY, rate, seconds, bound=bound, seed=7, ticks=queue.ticks, sleep=queue.sleep)
    expected, free = [], 0
    for arrival, service in zip(schedule.tolist(), services.tolist(), strict=True):
        free = max(free, arrival) + service
        expected.append((free - arrival) * 1e-9)
    return found, np.array(expected)


@pytest.mark.parametrize("load", [0.3, 0.9])
def test_latency_counts_from_the_scheduled_arrival(load: float) -> None:
    found, expected = run(200, load / 200)
    assert len(found.seconds) == len(expected)
    for q, tolerance in ((0.5, 0.01), (0.99, 0.05)):
        assert quantile(found.seconds, q).value == pytest.approx(np.quantile(expected, q), rel=tolerance)


def test_waiting_is_not_hidden() -> None:
    """A closed loop would read the service time, 4 ms; at 90 % load an image takes several times that."""
    found, _ = run(225, 0.004)
    assert quantile(found.seconds, 0.5).value > 3 * 0.004


def test_arrivals_are_poisson_and_seeded() -> None:
    gaps = np.diff(arrivals(100, 500, 0)) * 1e-9
    assert gaps.mean() == pytest.approx(0.01, rel=0.02)
    assert gaps.std() == pytest.approx(0.01, rel=0.02)
    assert (arrivals(100, 5, 1) == arrivals(100, 5, 1)).all()


def test_a_queue_that_only_grows_ends_the_trial() -> None:
    found, _ = run(400, 0.005, bound=0.02)
    assert [flag.trouble for flag in found.flags] == ["overrun"]
    assert len(found.seconds) < len(arrivals(400, 20, 7))
    assert not holds(found)


def test_an_engine_that_dies_keeps_the_answers_before() -> None:
    found, _ = run(100, 0.002, fail_at=50)
    assert found.failure is not None
    assert "device lost" in found.failure
    assert len(found.seconds) >= 50
    assert not holds(found)


def test_the_search_closes_in_on_the_highest_rate() -> None:
    def trial(rate: float, seconds: float) -> Measurement:
        p99 = 1e6 / (1 - rate / 1000) if rate < 1000 else 1e12
        return as_measurement(ENTRY, np.full(100, p99, np.int64), 10**9, rate, 0.01, 0, [], overrun=False)

    for guess in (100.0, 950.0, 5000.0):  # p99 = 10 ms at 900 images a second
        found = find_rate(trial, guess, 1.0, trials=20)
        best = best_rate(found)
        assert best is not None
        assert best.offered is not None
        assert 0.97 * 900 <= best.offered <= 900
        assert min(m.offered or 0 for m in found if not holds(m)) > best.offered
