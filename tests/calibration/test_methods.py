"""Each method against a plain implementation of its definition, and against ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector
from scipy.stats import entropy as divergence

from toolkit.calibration import methods
from toolkit.calibration.histogram import PER_OCTAVE, Histogram
from toolkit.types import Float

RANDOM = np.random.default_rng(0)
SAMPLES: dict[str, Float] = {
    "normal": RANDOM.standard_normal(40_000).astype(np.float32),
    "relu": np.maximum(RANDOM.standard_normal(40_000), 0).astype(np.float32),
    "laplace": RANDOM.laplace(size=40_000).astype(np.float32),
    "student": np.abs(RANDOM.standard_t(4, 40_000)).astype(np.float32),
    "uniform": RANDOM.uniform(0, 3, 40_000).astype(np.float32),
    "outlier": np.append(RANDOM.standard_normal(40_000), [300.0]).astype(np.float32),
}


def histogram(x: Float) -> Histogram:
    result = Histogram()
    assert result.add(x)
    return result


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> Float:
    return SAMPLES[request.param]


def test_minmax(sample: Float) -> None:
    assert methods.thresholds(histogram(sample))["minmax"] == np.abs(sample).max()


@pytest.mark.parametrize("percent", methods.PERCENTILES)
def test_percentile_is_numpys_within_a_bin(sample: Float, percent: float) -> None:
    (found,) = methods.percentiles(histogram(sample), [percent])
    exact = np.percentile(np.abs(sample), percent, method="inverted_cdf")
    assert exact <= found * (1 + 1e-7)
    assert found <= exact * (1 + 1 / PER_OCTAVE)


def quantized(x: Float, threshold: float, levels: int) -> Float:
    step = threshold / levels
    return np.sign(x) * np.minimum(np.rint(np.abs(x) / step), levels) * step


def error(x: Float, threshold: float, levels: int) -> float:
    return float(np.mean((x.astype(np.float64) - quantized(x.astype(np.float64), threshold, levels)) ** 2))


@pytest.mark.parametrize("levels", [127, 255])
def test_mse_finds_the_least_error(sample: Float, levels: int) -> None:
    found = methods.mse(histogram(sample), levels)
    largest = float(np.abs(sample).max())
    best = min(error(sample, t, levels) for t in largest * np.linspace(1, 0, 200, endpoint=False))
    assert error(sample, found, levels) <= best * 1.01
    assert error(sample, found, levels) <= error(sample, largest, levels) * (1 + 1e-9)


def kl(counts: np.ndarray, stop: int, levels: int) -> float:
    """The divergence as the talk tells it, by scipy's entropy, less what chance gives; times the total."""
    starts = np.arange(levels) * stop // levels
    level = np.searchsorted(starts, np.arange(stop), side="right") - 1
    p = counts[:stop].astype(np.float64)
    share = np.bincount(level, p, levels)
    p[-1] += counts[stop:].sum()
    filled = np.bincount(level, p > 0, levels)
    q = np.where(p > 0, share[level] / filled[level].clip(1), 0)
    if not q[-1] and p[-1]:
        q[-1] = 0.5
    return float(divergence(p, q)) * p.sum() - float(np.maximum(filled - 1, 0).sum()) / 2


@pytest.mark.parametrize("levels", [127, 255])
def test_entropy_finds_the_least_divergence(sample: Float, levels: int) -> None:
    counts = histogram(sample)
    found = methods.entropy(counts, levels)
    least, best = np.inf, 0.0
    for octave in range(8):
        width, bins = counts.uniform(octave)
        beyond = int(counts.beyond(octave)[0])
        top = min(int(counts.absmax / width) + 1, 2 * PER_OCTAVE) if octave == 0 else 2 * PER_OCTAVE
        for stop in sorted({top, *range(PER_OCTAVE + 32, top, 32)}, reverse=True):
            score = kl(np.append(bins, beyond), stop, levels + 1)
            if score < least:
                least, best = score, min(stop * width, counts.absmax)
    assert found == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("name", ["normal", "laplace", "student"])
def test_entropy_clips_about_as_much_as_onnx_runtimes(name: str) -> None:
    """Their grid is one for all candidates, ours one for each octave, so the two agree in kind, not in every digit."""
    x = SAMPLES[name]
    collector = HistogramCollector("entropy", True, 2049, 128, 99.99, "same")
    collector.collect({"x": [x]})
    theirs = float(np.max(np.abs(collector.compute_collection_result()["x"][:2])))
    ours = methods.entropy(histogram(x))
    clipped = [np.mean(np.abs(x) > t) for t in (ours, theirs)]
    assert ours < np.abs(x).max()
    assert max(clipped) < 0.01


def test_entropy_leaves_an_outlier_out_and_minmax_does_not() -> None:
    x = SAMPLES["outlier"]
    assert methods.thresholds(histogram(x))["minmax"] == 300
    assert methods.entropy(histogram(x)) < 6


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-30, 7e20])
@pytest.mark.parametrize("count", [1, 100])
def test_a_constant_keeps_its_value(value: float, count: int) -> None:
    x = np.full(count, value, np.float32)
    found = methods.thresholds(histogram(x))
    assert found == dict.fromkeys(found, float(np.abs(x[0])))


def test_thresholds_names_every_method() -> None:
    assert set(methods.thresholds(histogram(SAMPLES["normal"]))) == {
        "minmax", "percentile-99.9", "percentile-99.99", "percentile-99.999", "entropy", "mse",
    }  # fmt: skip
    assert {"entropy-255", "mse-255"} <= set(methods.thresholds(histogram(SAMPLES["relu"])))
