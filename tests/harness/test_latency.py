"""The closed loop on a clock that the test moves: known latencies come out as they went in, and trouble is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from toolkit.harness.lane import Contender, steady
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.measurement import Measurement
from toolkit.harness.statistics import quantile
from toolkit.harness.yardstick import Reading, Yardstick

NEVER = -1.0  # a precision that no engine reaches
GOOD = np.zeros((1, 10), np.float32)
PLAN = Sampling(seconds=20, yardstick=False, precision=NEVER, most_blocks=60, warmup=1)


class Time:
    """Nanoseconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def work(self, durations: Callable[[], float], answer: Any = GOOD) -> Callable[[], Any]:
        """A call that takes as many seconds as it draws."""

        def call() -> Any:
            self.now += round(durations() * 1e9)
            return answer

        return call


def lognormal(seed: int, scale: float = 0.01) -> Callable[[], float]:
    rng = np.random.default_rng(seed)
    return lambda: scale * float(rng.lognormal(0, 0.4))


def test_a_known_distribution_comes_out_as_it_went_in() -> None:
    time = Time()
    plan = Sampling(seconds=1e6, yardstick=False, precision=NEVER, most_blocks=150, turn=1.0)
    [found] = measure_latency([Contender("known", 1, time.work(lognormal(0)))], plan, ticks=time)
    assert quantile(found.seconds, 0.5).value == pytest.approx(0.01, rel=0.01)
    assert quantile(found.seconds, 0.99).value == pytest.approx(0.01 * np.exp(0.4 * 2.3263), rel=0.05)
    assert found.throughput == pytest.approx(1 / (0.01 * np.exp(0.4**2 / 2)), rel=0.01)


def test_warm_up_ends_when_it_gets_no_faster() -> None:
    time = Time()
    cold = iter([0.9, 0.5, 0.4, 0.3, 0.2, 0.15, 0.12] + [0.1] * 10_000)
    entry = Contender("cold", 1, time.work(lambda: next(cold)))
    [found] = measure_latency([entry], Sampling(yardstick=False, warmup=60), ticks=time)
    assert set(found.seconds.round(9)) == {0.1}
    assert len(found.warmup_ns) >= 9
    assert "not-steady" not in {flag.trouble for flag in found.flags}
    assert not steady([5, 4, 3, 2], 2)
    assert steady([2, 2, 2, 2], 2)


def test_an_engine_that_never_gets_steady_is_flagged() -> None:
    time = Time()
    duration = iter(0.1 * 0.9**k for k in range(10_000))
    entry = Contender("melting", 1, time.work(lambda: next(duration)))
    [found] = measure_latency([entry], Sampling(yardstick=False, warmup=0.5), ticks=time)
    assert "not-steady" in {flag.trouble for flag in found.flags}
    assert all(flag.remedy for flag in found.flags)


def test_rounds_are_shuffled_by_the_seed() -> None:
    def order(seed: int) -> list[str]:
        time, log = Time(), []

        def named(name: str) -> Callable[[], float]:
            def draw() -> float:
                log.append(name)
                return 1.0

            return draw

        entries = [Contender(name, 1, time.work(named(name))) for name in "abc"]
        plan = Sampling(seconds=1e4, yardstick=False, precision=NEVER, most_blocks=20, seed=seed, warmup=4)
        measure_latency(entries, plan, ticks=time)
        return log[-60:]

    first = order(1)
    assert first == order(1) != order(2)
    rounds = {tuple(first[i : i + 3]) for i in range(0, 60, 3)}
    assert len(rounds) > 3
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)


def test_settled_engines_stop_and_the_others_say_that_they_did_not_settle() -> None:
    time = Time()
    entries = [Contender("calm", 1, time.work(lambda: 0.5)), Contender("wild", 1, time.work(lognormal(1, 0.5)))]
    calm, wild = measure_latency(entries, Sampling(seconds=30, yardstick=False, precision=0.001), ticks=time)
    assert len(calm.blocks) == 12 < len(wild.blocks)
    assert "unsettled" in {flag.trouble for flag in wild.flags}
    assert "unsettled" not in {flag.trouble for flag in calm.flags}


def fails_after(count: int, time: Time, how: Callable[[], Any]) -> Callable[[], Any]:
    calls = iter(range(10**9))

    def call() -> Any:
        time.now += 100_000_000
        return GOOD if next(calls) < count else how()

    return call


def boom() -> Any:
    raise RuntimeError("device lost")


@pytest.mark.parametrize(
    ("how", "says"), [(boom, "device lost"), (lambda: np.full((1, 10), np.nan), "NaN"), (lambda: GOOD[0], "shape")]
)
def test_an_engine_that_dies_halfway_keeps_what_it_had_and_the_others_go_on(how: Callable[[], Any], says: str) -> None:
    time = Time()
    entries = [Contender("dies", 1, fails_after(20, time, how)), Contender("lives", 1, time.work(lambda: 0.1))]
    dies, lives = measure_latency(entries, PLAN, ticks=time)
    assert dies.failure is not None
    assert says in dies.failure
    assert 0 < len(dies.blocks) < len(lives.blocks)
    assert lives.failure is None
    assert not dies.trusted


def test_a_clock_that_steps_back_loses_those_samples_and_says_so() -> None:
    time = Time()
    draws = np.where(np.arange(100_000) % 17 == 16, -5.0, 0.1)
    draw = iter(draws)
    [found] = measure_latency([Contender("stepped", 1, time.work(lambda: float(next(draw))))], PLAN, ticks=time)
    assert (found.seconds > 0).all()
    [flag] = [flag for flag in found.flags if flag.trouble == "clock-step"]
    assert "stepped back" in flag.text


def test_drift_is_flagged() -> None:
    time = Time()
    calls = iter(range(10**9))
    creep = time.work(lambda: 0.1 * (1 + 0.002 * next(calls)))
    [found] = measure_latency([Contender("creeps", 1, creep)], PLAN, ticks=time)
    assert "drift" in {flag.trouble for flag in found.flags}


def test_an_interrupted_bench_hands_over_what_it_had() -> None:
    time, kept = Time(), []

    def interrupt() -> Any:
        raise KeyboardInterrupt

    def keep(measurements: Sequence[Measurement]) -> None:
        kept.append(measurements)

    entries = [Contender("good", 1, time.work(lambda: 0.1)), Contender("stopped", 1, fails_after(20, time, interrupt))]
    with pytest.raises(KeyboardInterrupt):
        measure_latency(entries, PLAN, ticks=time, checkpoint=keep)
    assert len(kept[-1][0].seconds) > 5


def test_the_device_clock_is_the_devices_own() -> None:
    time = Time()
    entry = Contender("gpu", 1, time.work(lambda: 1.0), clock="device", device_ns=lambda runs: [250_000] * runs)
    [found] = measure_latency([entry], PLAN, ticks=time)
    assert found.clock == "device"
    assert set(found.seconds.round(9)) == {0.00025}


class Engine:
    """An engine whose speed is drawn anew each time it is opened."""

    def __init__(self, time: Time, seed: int, spread: float, opening: float = 0.0, broken_after: int = 10**9) -> None:
        self.time, self.opened, self.opening, self.broken_after = time, 0, opening, broken_after
        self.draw = np.random.default_rng(seed).lognormal(0, spread, 10_000)

    def reopen(self) -> None:
        self.time.now += round(self.opening * 1e9)
        self.opened += 1
        if self.opened > self.broken_after:
            raise RuntimeError("the driver is gone")

    def entry(self, name: str, **more: Any) -> Contender:
        call = self.time.work(lambda: 0.01 * float(self.draw[self.opened]))
        return Contender(name, 1, call, reopen=self.reopen, **more)


def test_engines_are_opened_anew_and_the_interval_holds_what_that_changes() -> None:
    time = Time()
    moody, steady_ = Engine(time, 0, 0.1), Engine(time, 1, 0.0)
    plan = Sampling(seconds=30, yardstick=False, precision=0.01, most_blocks=200, warmup=1, turn=0.1)
    first, second = measure_latency([moody.entry("moody"), steady_.entry("steady")], plan, ticks=time)
    assert [block.launch for block in first.blocks] == sorted(block.launch for block in first.blocks)
    assert first.blocks[-1].launch == moody.opened >= 4
    assert len(second.blocks) == plan.least_blocks, "an engine that is always the same has settled"
    assert second.blocks[-1].launch >= 3
    within = quantile(first.seconds, 0.5, first.groups)
    over = quantile(first.seconds, 0.5, first.clusters)
    assert over.width > 1.3 * within.width  # two blocks a launch that are alike: the square root of 2


def test_opening_takes_a_small_part_of_the_time() -> None:
    time = Time()
    slow = Engine(time, 0, 0.0, opening=1.0)
    plan = Sampling(seconds=60, yardstick=False, precision=NEVER, most_blocks=10_000, warmup=1, turn=0.1)
    measure_latency([slow.entry("slow to open")], plan, ticks=time)
    assert 3 <= slow.opened <= 60 / 8 + 1


def test_entries_of_one_engine_open_it_once() -> None:
    time = Time()
    engine = Engine(time, 0, 0.0)
    entries = [engine.entry("e", clock="with-transfers"), engine.entry("e", clock="end-to-end")]
    found = measure_latency(entries, PLAN, ticks=time)
    assert [m.blocks[-1].launch for m in found] == [engine.opened, engine.opened]


def test_an_engine_that_cannot_be_opened_again_is_out_and_the_others_go_on() -> None:
    time = Time()
    dies, lives = Engine(time, 0, 0.0, broken_after=2), Engine(time, 1, 0.0)
    gone, there = measure_latency([dies.entry("dies"), lives.entry("lives")], PLAN, ticks=time)
    assert gone.failure is not None
    assert "the driver is gone" in gone.failure
    assert there.failure is None
    assert 0 < len(gone.blocks) < len(there.blocks)


def test_an_engine_on_several_threads_waits_until_the_cores_are_near() -> None:
    time = Time()
    ratios = iter([3.0] * 40 + [0.8] * 10_000)
    now = [0.0]

    class Far(Yardstick):
        def read(self) -> Reading:
            now[0] = next(ratios)
            return Reading((1,), (now[0],))

    two = Contender("two", 1, time.work(lambda: 0.01 * max(1.0, now[0])), threads=2)
    one = Contender("one", 1, time.work(lambda: 0.01))
    plan = Sampling(seconds=1e4, precision=10.0, most_blocks=1000, warmup=1)
    many, single = measure_latency([two, one], plan, yardstick=Far(), ticks=time)
    assert len(single.blocks) == plan.least_blocks
    assert not single.blocks[0].handoff
    assert len(many.blocks) - many.apart == plan.least_blocks < many.apart
    assert "far-cores" in {flag.trouble for flag in many.flags}
