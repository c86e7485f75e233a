"""What ranges say of themselves: how two origins differ, which threshold is taken, and what is refused, by name."""

from __future__ import annotations

import msgspec
import pytest

from toolkit.calibration.ranges import Origin, Ranges, TensorRange
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


@pytest.mark.parametrize(
    "change", [{"min": 9.0}, {"values": -1}, {"zeros": -1}, {"bars": (1, -1)}, {"thresholds": {"mse": -0.5}}]
)
def test_a_range_that_no_tensor_has_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="min <= max, and no negative count or threshold"):
        TensorRange(**{**msgspec.structs.asdict(FOUND), **change})
    TensorRange(min=1.0, max=1.0, values=0, zeros=0, thresholds={"mse": 0.0}, bars=(0,))
