"""The real MLPerf LoadGen on a stand-in engine: every query is answered, raw latencies come back."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from toolkit.errors import MissingExtra
from toolkit.harness.lane import Contender
from toolkit.harness.loadgen import run_loadgen
from toolkit.harness.measurement import Scenario
from toolkit.runtime.batcher import Batcher

ENTRY = Contender("stand-in", 8, lambda: None)


@pytest.mark.parametrize("scenario", ["single-stream", "server", "offline"])
def test_every_scenario_comes_back_with_raw_samples(scenario: Scenario) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs the extra: mlperf")
    seen: list[int] = []

    def run(batch: Any) -> Any:
        seen.extend(batch[:, 0].tolist())
        return batch

    with Batcher(run, max_batch=8, max_wait=0.0) as batcher:
        submit = lambda index: batcher.submit(np.array([index]))  # noqa: E731
        found = run_loadgen(scenario, submit, ENTRY, images=16, seconds=0.2, rate=200.0, seed=3)
    assert found.failure is None
    assert found.scenario == scenario
    assert found.images == len(found.seconds) == len(seen) > 10
    assert (found.seconds > 0).all()
    assert set(seen) <= set(range(16))
    assert found.throughput is not None
    detail = found.settings["loadgen"]
    assert "loadgen_version" in detail
    if scenario != "offline":  # its own median is one of the samples that came back
        reported = int(detail["result_50.00_percentile_latency_ns"]) * 1e-9
        assert np.quantile(found.seconds, 0.4) <= reported <= np.quantile(found.seconds, 0.6)


def test_an_engine_that_fails_does_not_hang_loadgen() -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs the extra: mlperf")

    def run(batch: Any) -> Any:
        raise RuntimeError("device lost")

    with Batcher(run, max_batch=8, max_wait=0.0) as batcher:
        found = run_loadgen("single-stream", lambda i: batcher.submit(np.array([i])), ENTRY, images=4, seconds=0.1, rate=1.0)
    assert found.failure is not None
    assert "device lost" in found.failure


def test_without_the_extra_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "mlperf_loadgen":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"resnet-deploy\[mlperf\]"):
        run_loadgen("server", lambda index: None, ENTRY, images=1, seconds=1, rate=1)  # type: ignore[arg-type,return-value]
