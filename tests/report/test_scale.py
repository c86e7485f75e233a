"""Scales hold what they are given, and their ticks are round and inside."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.report.scale import Axis, fit, label, ticks

values = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20)


@given(values, st.booleans())
def test_every_value_lies_on_the_paper_and_order_is_kept(numbers, log):
    scale = fit(numbers, Axis(label="x", log=log), 50, 400)
    at = [scale.at(v) for v in sorted(numbers)]
    assert all(50 <= x <= 400 for x in at)
    assert at == sorted(at)


@given(values, st.booleans())
def test_ticks_are_inside_few_and_ascending(numbers, log):
    scale = fit(numbers, Axis(label="x", log=log), 0, 100)
    marks = ticks(scale)
    assert 1 <= len(marks) <= 9
    assert marks == sorted(set(marks))
    assert all(scale.low * (1 - 1e-6) <= t <= scale.high * (1 + 1e-6) for t in marks if t)


@pytest.mark.parametrize(("low", "high", "want"), [(0, 100, [0, 20, 40, 60, 80, 100]), (0.1, 0.5, [0.1, 0.2, 0.3, 0.4, 0.5])])
def test_linear_ticks(low, high, want):
    marks = ticks(fit([low, high], Axis(label="", low=low, high=high), 0, 1))
    assert marks == pytest.approx(want)


def test_nan_and_zero_do_not_break_a_logarithmic_axis():
    scale = fit([0.0, math.nan, 10.0, 1000.0], Axis(label="", log=True), 0, 1)
    assert 0 < scale.low < 10
    assert scale.high > 1000


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.25"), (3.0, "3"), (12345, "12.35k"), (4.09e9, "4.09G"), (0, "0")])
def test_labels_are_short(value, text):
    assert label(value) == text
