"""What ranges say of themselves: how two origins differ, which threshold is taken, and what is refused, by name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from toolkit.calibration.histogram import Histogram
from toolkit.calibration.methods import thresholds
from toolkit.calibration.ranges import LIMIT, Origin, Ranges, TensorRange
from toolkit.errors import CalibrationError

ORIGIN = Origin(layers="l", weights="w", images="i", preprocess="p", tensors="t")
FOUND = TensorRange(min=-2.0, max=8.0, values=9, zeros=1, thresholds={
    "minmax": 8.0, "entropy": 4.0, "mse": 5.0, "mse-255": 6.0, "percentile-99.99": 7.0, "percentile-99.9": 1.0})  # fmt: skip
RANGES = Ranges(origin=ORIGIN, images=3, tensors={"x": FOUND})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": "other"}, "its layers differ"),
        ({"weights": "other"}, "its layers are the same, but their weights differ"),
        ({"images": "other"}, "other images were used"),
        ({"preprocess": "other"}, "the images were preprocessed in another way"),
        ({"tensors": "other"}, "other tensors were watched"),
        ({"toolkit": 7}, "another version of the toolkit made it"),
        ({"weights": "other", "images": "other"}, "its layers are the same, but their weights differ"),
        ({}, None),
    ],
)
def test_the_first_difference_of_two_origins_is_told(change: dict[str, object], words: str | None) -> None:
    assert ORIGIN.difference(msgspec.structs.replace(ORIGIN, **change)) == words


@pytest.mark.parametrize(
    ("method", "percentile", "levels", "limit"),
    [
        ("minmax", 99.99, 127, 8.0),
        ("entropy", 99.99, 127, 4.0),
        ("mse", 99.99, 127, 5.0),
        ("mse", 99.99, 255, 6.0),
        ("entropy", 99.99, 255, 4.0),  # no threshold of its own for unsigned steps
        ("auto", 99.99, 127, 5.0),
        ("percentile", 99.99, 127, 7.0),
        ("percentile", 99.9, 127, 1.0),
    ],
)
def test_the_threshold_of_the_method_is_taken(method: str, percentile: float, levels: int, limit: float) -> None:
    assert RANGES.range("x", method, percentile, levels=levels) == (max(-2.0, -limit), limit)  # type: ignore[arg-type]


def test_a_range_holds_zero() -> None:
    above = msgspec.structs.replace(RANGES, tensors={"x": msgspec.structs.replace(FOUND, min=1.0)})
    below = msgspec.structs.replace(RANGES, tensors={"x": msgspec.structs.replace(FOUND, min=-9.0, max=-1.0)})
    assert above.range("x", "minmax") == (0.0, 8.0)
    assert below.range("x", "minmax") == (-8.0, 0.0)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(CalibrationError, match=r"no tensor 'y'.*another graph.*toolkit calibrate RECIPE"):
        RANGES.range("y", "minmax")
    with pytest.raises(CalibrationError, match=r"'x' have no percentile-99\.999; they have minmax, entropy"):
        RANGES.range("x", "percentile", 99.999)
    with pytest.raises(CalibrationError, match=r"lack 'a'\. "):
        RANGES.check(None, ["x", "a"])
    with pytest.raises(CalibrationError, match=r"lack 'a' and 2 more\. "):
        RANGES.check(None, ["a", "b", "c"])
    with pytest.raises(CalibrationError, match=r"lack 'a' and 1 more\. "):
        RANGES.check(None, ["a", "b"])


@pytest.mark.parametrize(
    "change", [{"min": 9.0}, {"values": -1}, {"zeros": -1}, {"bars": (1, -1)}, {"thresholds": {"mse": -0.5}}]
)
def test_a_range_that_no_tensor_has_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="min <= max, and no negative count or threshold"):
        TensorRange(**{**msgspec.structs.asdict(FOUND), **change})
    TensorRange(min=1.0, max=1.0, values=0, zeros=0, thresholds={"mse": 0.0}, bars=(0,))


def test_bars_count_magnitudes_in_64_equal_steps() -> None:
    """k + 1 values in the middle of step k, of both signs; and the largest, in the last."""
    histogram = Histogram()
    values = np.repeat(np.arange(64) + 0.5, np.arange(1, 65))
    assert histogram.add(
        np.concatenate([values * np.where(np.arange(len(values)) % 2, 1, -1), [0.0, 0.0, 64.0]]).astype(np.float32)
    )
    found = TensorRange.of(histogram)
    assert found.bars == (*range(1, 64), 65)
    assert (found.min, found.max, found.values, found.zeros) == (values.max() * -1, 64.0, len(values) + 3, 2)
    assert found.thresholds == thresholds(histogram)
    zeros = Histogram()
    assert zeros.add(np.zeros(9, np.float32))
    assert TensorRange.of(zeros).bars == ()


def test_the_file_is_sorted_through_and_through_and_refusals_name_it(tmp_path: Path) -> None:
    mixed = msgspec.structs.replace(FOUND, thresholds={"mse": 5.0, "entropy": 4.0})
    text = msgspec.structs.replace(RANGES, tensors={"x": mixed}).encode().decode()
    assert text.index('"entropy"') < text.index('"mse"')
    path = tmp_path / "ranges.json"
    path.write_bytes(RANGES.encode().replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(CalibrationError, match=rf"^{path} has format version 9"):
        Ranges.read(path)
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)  # of holes
    with pytest.raises(CalibrationError, match=f"larger than the {LIMIT} bytes"):
        Ranges.read(path)
