"""MLPerf LoadGen as the one that issues the queries: SingleStream, Offline and Server, as its own results are taken.

Its `issue` callback blocks its thread, so it only hands the query on (`submit` must return at once, as a Batcher's does).
The raw latencies come from its trace, where Server counts from the scheduled arrival.
"""

from __future__ import annotations

import re
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.disk.drafts import scratch
from toolkit.errors import MeasurementError, MissingExtra
from toolkit.harness.lane import Contender
from toolkit.harness.measurement import Measurement, Scenario
from toolkit.harness.server import Submit, as_measurement

Kind = Literal["SingleStream", "Offline", "Server"]
KINDS: dict[Scenario, Kind] = {"single-stream": "SingleStream", "offline": "Offline", "server": "Server"}


def library() -> Any:
    """Raises MissingExtra."""
    try:
        import mlperf_loadgen
    except ImportError:
        raise MissingExtra("mlcommons-loadgen", "mlperf") from None
    return mlperf_loadgen


def run_loadgen(
    scenario: Scenario,
    submit: Submit,
    entry: Contender,
    *,
    images: int,
    seconds: float,
    rate: float,
    bound: float = 1.0,
    seed: int = 0,
) -> Measurement:
    """One performance run over `images` images, of `seconds` at least. Times in seconds.

    `rate`: Server offers so many images a second; Offline sends `rate * seconds` at once; SingleStream ignores it. The
    samples are an image each, in the order issued. Raises MissingExtra, MeasurementError.
    """
    load = library()
    failures: list[str] = []

    def complete(identity: int, answer: Future[Any]) -> None:
        if error := answer.exception():
            failures.append(f"{entry.engine} failed: {type(error).__name__}: {error}")
        load.QuerySamplesComplete([load.QuerySampleResponse(identity, 0, 0)])  # in any case: LoadGen waits for ever

    def issue(samples: list[Any]) -> None:
        for sample in samples:
            answer = submit(sample.index)
            answer.add_done_callback(lambda answer, identity=sample.id: complete(identity, answer))  # type: ignore[misc]

    settings = _settings(load, scenario, seconds, rate, bound, seed)
    with scratch() as folder:
        _start(load, issue, images, settings, folder)
        latencies = read_trace(folder / "mlperf_log_trace.json")
        detail = read_detail(folder / "mlperf_log_detail.txt")
    duration = int(latencies.max()) if scenario == "offline" else round(1e9 * len(latencies) / _answered_rate(detail, latencies))
    how = {"loadgen": detail}
    return as_measurement(entry, latencies, duration, rate, bound, seed, failures, overrun=False, settings=how, scenario=scenario)


def _settings(load: Any, scenario: Scenario, seconds: float, rate: float, bound: float, seed: int) -> Any:
    settings = load.TestSettings()
    settings.scenario = getattr(load.TestScenario, KINDS[scenario])
    settings.mode = load.TestMode.PerformanceOnly
    settings.min_duration_ms = round(seconds * 1000)
    settings.min_query_count = 1
    settings.server_target_qps = settings.offline_expected_qps = rate
    settings.server_target_latency_ns = round(bound * 1e9)
    settings.server_target_latency_percentile = 0.99
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = seed
    return settings


def _start(load: Any, issue: Any, images: int, settings: Any, folder: Path) -> None:
    logs = load.LogSettings()
    logs.enable_trace = True
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    system = load.ConstructSUT(issue, lambda: None)
    library_ = load.ConstructQSL(images, images, lambda _: None, lambda _: None)
    try:
        load.StartTestWithLogSettings(system, library_, settings, logs, str(folder / "audit.config"))
    finally:
        load.DestroyQSL(library_)
        load.DestroySUT(system)


def read_trace(path: Path) -> NDArray[np.int64]:
    """Latency of each sample in nanoseconds, in the order issued. The trace as a whole is not valid JSON; its lines are clear.

    Raises MeasurementError where it holds none.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = re.findall(r'"name":"Sample".*?"sample_seq":(\d+).*?"complete_ns":(\d+)', text)
    if not rows:
        raise MeasurementError("LoadGen's trace holds no sample", remedy="Measure longer: --seconds")
    times = np.array(rows, np.int64)
    latencies: NDArray[np.int64] = times[np.argsort(times[:, 0], kind="stable"), 1]
    return latencies


def read_detail(path: Path) -> dict[str, str]:
    """What LoadGen itself concluded: the `result_...` lines of its detail log, and its version."""
    rows = re.findall(r'"key": "(result_[^"]+|loadgen_version)", "value": ("[^"]*"|[^,]+)', path.read_text(encoding="utf-8"))
    return {key: value.strip('"') for key, value in rows}


def _answered_rate(detail: dict[str, str], latencies: NDArray[np.int64]) -> float:
    """Images a second over the whole run."""
    return float(detail.get("result_completed_samples_per_sec") or 1e9 / latencies.mean())
