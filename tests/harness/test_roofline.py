"""Peaks are this machine's own, and a share is what arithmetic says."""

from __future__ import annotations

import pytest

from toolkit.backends.onnxruntime.profile import gemms
from toolkit.cpu import cores
from toolkit.graph.product import products
from toolkit.harness.measurement import Measurement
from toolkit.harness.roofline import Peaks, Work, measure_peaks, reach

PEAKS = Peaks(macs={"fp32": 100.0, "int8": 400.0}, bytes=10.0, threads=1, how="stated")
WORK = Work(macs=1000, weight_bytes=100, activation_bytes=20)


def measured(precision: str, batch: int, images: int, seconds: float) -> Measurement:
    return Measurement(
        engine="e",
        precision=precision,
        target="cpu",
        batch=batch,
        clock="device",
        started="",
        images=images,
        duration_ns=int(seconds * 1e9),
    )


def test_weights_are_read_once_a_batch():
    assert WORK.intensity(1) == 1000 / 120
    assert WORK.intensity(5) == 5000 / 200


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8+fp16"])
def test_memory_is_the_roof_at_low_intensity(precision):
    found = reach(measured(precision, 1, 1, 100), WORK, PEAKS)
    assert found is not None
    assert found.roof == pytest.approx(10.0 * 1000 / 120)
    assert found.rate == pytest.approx(10)
    assert found.share == pytest.approx(10 / found.roof)


def test_arithmetic_is_the_roof_at_high_intensity():
    shares = {p: reach(measured(p, 100, 100, 1000), WORK, PEAKS) for p in ("fp32", "int8")}
    assert [shares[p].roof for p in shares if shares[p]] == [100.0, 400.0]


def test_without_throughput_there_is_no_share():
    assert reach(measured("fp32", 1, 0, 0), WORK, PEAKS) is None


def test_int8_without_an_int8_peak_is_held_against_fp32():
    found = reach(measured("int8", 100, 1, 1), WORK, Peaks(macs={"fp32": 100.0}, bytes=10.0, threads=1, how=""))
    assert found is not None
    assert found.kind == "fp32"


def test_the_peaks_of_this_machine_exceed_what_a_plain_loop_does():
    peaks = measure_peaks(cores(), gemms(products(), cores()))
    assert set(peaks.macs) == {"fp32", "int8"}
    assert peaks.macs["fp32"] > 1e9
    assert 1e8 < peaks.bytes < 1e13


def test_the_products_count_their_own_multiply_adds():
    assert {kind: run() for kind, run in gemms(products(64), 1).items()} == {"fp32": 64**3, "int8": 64**3}
