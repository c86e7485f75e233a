"""Layers add up."""

from __future__ import annotations

import pytest

from toolkit.harness.layers import Layer, LayerTimes

LAYERS = LayerTimes(
    engine="e",
    batch=1,
    runs=3,
    layers=(
        Layer(name="a", kind="Conv", milliseconds=1.0),
        Layer(name="b", kind="Add", milliseconds=4.0),
        Layer(name="c", kind="Conv", milliseconds=2.0),
    ),
)


def test_totals_and_kinds():
    assert LAYERS.total == 7.0
    assert LAYERS.by_kind() == [("Add", 1, 4.0), ("Conv", 2, pytest.approx(3.0))]


def test_the_slowest_come_first():
    assert [layer.name for layer in LAYERS.slowest(2)] == ["b", "c"]
