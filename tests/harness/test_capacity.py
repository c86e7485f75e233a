"""What so many images take: arithmetic on known rates, intervals that hold, and what is said beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.harness.test_batching import MANIFEST, results, trial
from toolkit.errors import MeasurementError
from toolkit.harness.capacity import Span, capacity, rate_of
from toolkit.harness.intervals import throughput
from toolkit.harness.measurement import Block, Flag
from toolkit.harness.results import Results


def test_a_billion_a_day() -> None:
    found = capacity(results(trial(1, 50), trial(8, 100)), 1e9)
    (need,) = found.needs
    assert (need.basis, need.unit) == ("offline, batch 8", "1 core")
    assert need.workers.value == pytest.approx(1e9 / 100 / 86400)
    assert need.unit_hours.value == pytest.approx(1e9 / 100 / 3600)
    assert (need.kwh, need.cost) == (None, None)


def test_idle_time_is_paid_for_and_not_worked() -> None:
    full = capacity(results(trial(8, 100)), 1e6, price=2.0, watts=100).needs[0]
    half = capacity(results(trial(8, 100)), 1e6, price=2.0, watts=100, utilization=0.5, hours=48).needs[0]
    assert half.workers.value == pytest.approx(full.workers.value)  # twice the time, half of it busy
    assert half.unit_hours == full.unit_hours
    assert half.cost and full.cost and half.cost.value == pytest.approx(2 * full.cost.value) == pytest.approx(1e4 / 3600 * 2 * 2)
    assert full.kwh and full.kwh.value == pytest.approx(1e4 / 3600 * 0.1)


def test_cores_are_those_that_were_kept_busy() -> None:
    threads = msgspec.structs.replace(MANIFEST, settings={"threads": 1})
    of = results(trial(8, 100), trial(8, 180, streams=2), manifest=threads)
    of = msgspec.structs.replace(of, environment=msgspec.structs.replace(of.environment, affinity=(0, 1, 2, 3)))
    need = capacity(of, 1e6).needs[0]
    assert need.unit == "2 cores" and need.unit_hours.value == pytest.approx(1e6 / 180 / 3600 * 2)
    gpu = trial(8, 100)
    gpu = msgspec.structs.replace(gpu, target="tensorrt", joules=8 * 100 / 4)  # 4 images a joule
    need = capacity(results(gpu), 1e6).needs[0]
    assert need.unit == "1 GPU" and need.kwh and need.kwh.value == pytest.approx(1e6 / 4 / 3.6e6)
    assert "NVML" in need.energy_from


def test_the_interval_is_carried_through() -> None:
    span = Span(value=100, low=80, high=125)
    assert span.over(1e3) == Span(value=10, low=8, high=12.5)
    assert Span(value=100, low=100, high=None).over(1e3) == Span(value=10, low=None, high=10)
    need = capacity(results(noisy(0)), 1e9).needs[0]
    assert need.rate.low and need.rate.high and need.workers.low and need.workers.high
    assert need.rate.low < need.rate.value < need.rate.high
    assert need.workers.low == pytest.approx(1e9 / need.rate.high / 86400)


def noisy(seed: int) -> Any:
    """30 blocks of 20 calls of batch 8, each block with a pace of its own; the expected call takes 80 ms."""
    random = np.random.default_rng(seed)
    paces = random.gamma(25, 1 / 25, 30) * 0.08e9
    blocks = tuple(
        Block(at_ns=i, samples_ns=tuple(int(t) for t in pace * random.uniform(0.9, 1.1, 20))) for i, pace in enumerate(paces)
    )
    total = sum(sum(block.samples_ns) for block in blocks)
    single = trial(8, 100, scenario="single-stream")
    return msgspec.structs.replace(single, blocks=blocks, images=8 * 600, duration_ns=total)


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Blocks whose paces scatter by 20 %: as independent samples their interval would be four times too narrow."""
    spans = [rate_of(noisy(seed)) for seed in range(200)]
    held = sum(span.low <= 100 <= span.high for span in spans if span.low is not None and span.high is not None)
    assert 180 <= held <= 200  # of 190 expected


def test_the_interval_is_the_one_that_reports_show() -> None:
    found, shown = rate_of(noisy(0)), throughput(noisy(0))
    assert shown is not None and (found.value, found.low, found.high) == shown
    few = msgspec.structs.replace(noisy(0), blocks=noisy(0).blocks[:3])  # too few blocks to tell one
    assert (rate_of(few).low, rate_of(few).high) == (None, None)


def test_a_server_counts_with_the_rate_that_kept_its_bound() -> None:
    def server(offered: float, latency_ms: float) -> Any:
        return trial(1, 1000 / latency_ms, scenario="server", offered=offered, bound_ns=50_000_000)

    found = capacity(results(trial(8, 400), server(100, 10), server(200, 40), server(260, 80), server(300, 90)), 1e9)
    offline, serving = found.needs
    assert offline.basis.startswith("offline") and serving.basis == "server, p99 under 50 ms"
    assert (serving.rate.value, serving.rate.low, serving.rate.high) == (200, 200, 260)


def test_what_is_not_counted_is_said() -> None:
    flag = Flag(trouble="other-load", text="others ran", remedy="stop them")
    found = capacity(results(trial(8, 100, flags=(flag,))), 1e6)
    assert any("decoding" in note for note in found.notes) and found.needs[0].notes == ("flagged: other-load",)
    whole = msgspec.structs.replace(trial(1, 40), clock="end-to-end")
    found = capacity(results(trial(8, 100), whole), 1e6)
    assert not any("decoding" in note for note in found.notes)
    assert [need.basis for need in found.needs] == ["offline, batch 8", "end-to-end, batch 1"]


@pytest.mark.parametrize(
    "wrong", [{"images": 0}, {"images": 1e6, "hours": 0}, {"images": 1e6, "utilization": 0}, {"images": 1e6, "utilization": 1.1}]
)
def test_numbers_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(MeasurementError, match="not possible"):
        capacity(results(trial(8, 100)), **wrong)


@pytest.mark.parametrize("wrong", [{"price": -1.0}, {"price": float("inf")}, {"watts": float("nan")}])
def test_a_price_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(MeasurementError, match="0 or more, and finite"):
        capacity(results(trial(8, 100)), 1e6, **wrong)


def test_results_without_a_rate_are_refused() -> None:
    with pytest.raises(MeasurementError, match=r"no rate of an engine.*--scenario offline"):
        capacity(results(), 1e6)


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit", "capacity", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    of: Results = results(trial(8, 100))
    of.write(file)
    found = json.loads(run(file, "--images", "1e9", "--utilization", "0.5", "--price", "0.1", "--json").stdout)
    assert found["images"] == 1e9 and found["needs"][0]["workers"]["value"] == pytest.approx(1e9 / 100 / 86400 / 0.5)
    text = run(file, "--images", "1e9")
    assert "1,000,000,000 images in 24 hours" in text.stdout and "offline," in text.stdout, text.stderr
    assert run(file, "--images", "0").returncode == 2
    assert run(tmp_path / "none.json", "--images", "1").returncode == 2
