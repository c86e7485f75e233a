"""What numba compiles says in machine code what it says in Python: wrapping integers, shifts and NaN could part them."""

from __future__ import annotations

from types import FunctionType

import numpy as np
import pytest

from toolkit.calibration import histogram as histograms
from toolkit.calibration import methods
from toolkit.calibration.histogram import Histogram

VALUES = {
    "both signs": np.random.default_rng(0).standard_normal(5000).astype(np.float32),
    "after a ReLU": np.maximum(np.random.default_rng(1).standard_normal(6001), 0).astype(np.float32),
    "six decades": (10.0 ** np.random.default_rng(2).uniform(-4, 2, 4097)).astype(np.float32),
    "zeros": np.zeros(33, np.float32),
    "subnormal": np.full(5, 1e-40, np.float32),
    "NaN": np.array([1.0, np.nan], np.float32),
    "infinite": np.array([-np.inf, 2.0], np.float32),
}


def interpret(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on the kernels run in Python; their names."""
    found = []
    for module in (histograms, methods):
        for name, kernel in list(vars(module).items()):
            if isinstance(getattr(kernel, "py_func", None), FunctionType):
                monkeypatch.setattr(module, name, kernel.py_func)
                found.append(name)
    return found


def told(values: np.ndarray) -> dict[str, object]:
    """All that a histogram of `values`, added in three pieces that rise, says; with every method's threshold."""
    one = Histogram()
    fine = [one.add(piece) for piece in (values * np.float32(2**-9), values[::3], values)]
    if not all(fine):
        return {"finite": fine}
    width, counts = one.uniform(1)
    return {
        "finite": fine,
        "extremes": (one.min, one.max, one.zeros, one.total),
        "counts": (one.counts().tolist(), width, counts.tolist()),
        "thresholds": methods.thresholds(one),
    }


@pytest.mark.parametrize("kind", VALUES)
def test_kernels_compiled_and_interpreted_agree(kind, monkeypatch):
    compiled = told(VALUES[kind])
    assert set(interpret(monkeypatch)) >= {"_add", "_count", "_extremes", "_raise", "_divergences", "_errors", "_sums"}
    assert told(VALUES[kind]) == compiled
