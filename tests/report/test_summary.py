"""Rows are derived from the raw samples, and say what was not measured."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from toolkit.errors import MeasurementError
from toolkit.harness.results import Results
from toolkit.report.summary import baseline, headline, merge, quantile, rows


def test_figures_are_those_of_the_samples(results: Results):
    by_name = {row.name: row for row in rows(results)}
    reference = next(m for m in results.measurements if m.engine == "reference" and m.batch == 1)
    fast = next(m for m in results.measurements if m.precision == "int8" and m.batch == 1)
    row = by_name[fast.engine]
    assert row.p50 == pytest.approx(np.median(fast.seconds) * 1e3)
    assert row.p99 == pytest.approx(np.percentile(fast.seconds, 99) * 1e3)
    assert row.speedup == pytest.approx(np.median(reference.seconds) / np.median(fast.seconds))
    assert row.throughput == max(m.throughput for m in results.of(fast.engine) if m.throughput)
    ours = next(a for a in results.answers if a.engine == fast.engine)
    assert row.top1 == pytest.approx(np.mean(np.array(ours.top1) == np.array(ours.labels)))


def test_the_reference_is_the_baseline_wherever_it_stands(results: Results):
    turned = msgspec.structs.replace(results, measurements=results.measurements[::-1])
    assert baseline(turned) == "reference"
    without = msgspec.structs.replace(results, verdicts=())
    assert baseline(without) == results.measurements[0].engine


def test_no_speed_is_told_across_clocks_or_batches(results: Results):
    at_four = tuple(m for m in results.measurements if m.engine != "fp32" or m.batch == 4)
    row = next(r for r in rows(msgspec.structs.replace(results, measurements=at_four)) if r.name == "fp32")
    assert row.p50 is not None
    assert row.speedup is None


def test_a_percentile_needs_calls_beyond_it(results: Results):
    m = results.measurements[0]
    assert len(m.seconds) == 200
    assert quantile(m, 0.99) is not None
    assert quantile(m, 0.999) is None


def test_a_failed_engine_keeps_its_row(results: Results):
    failed = next(row for row in rows(results) if row.name in results.failures)
    assert failed.p50 is None
    assert failed.absent == results.failures[failed.name]
    assert not failed.unsteady, "nothing was timed that could be unsteady"


def test_headline_names_each_judged_engine(results: Results):
    lines = headline(rows(results), baseline(results))
    assert len(lines) == len(results.verdicts)
    assert all("accepted" in line for line in lines)


def test_files_merge_and_devices_do_not(results: Results):
    parts = [msgspec.structs.replace(results, verdicts=()), msgspec.structs.replace(results, measurements=())]
    assert [r.p50 for r in rows(merge(parts))] == [r.p50 for r in rows(results)]
    foreign = msgspec.structs.replace(results, environment=msgspec.structs.replace(results.environment, device="another"))
    with pytest.raises(MeasurementError, match="two devices"):
        merge([results, foreign])
    with pytest.raises(MeasurementError, match="no results"):
        merge([])
