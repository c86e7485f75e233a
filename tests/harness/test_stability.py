"""Flags from the machine's state; each one says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.harness.conditions import Moment, Monitor
from toolkit.harness.measurement import Block, Measurement
from toolkit.harness.stability import flags_of

CALM: dict[str, Any] = {"other": 0.01, "steal": 0.0, "mhz": 3000.0, "cpu_throttles": 4, "gpu_mhz": 1500}


def measurement(yard: list[int]) -> Measurement:
    blocks = tuple(Block(at_ns=i, samples_ns=(1000 + i % 3,), yardstick_ns=(y,)) for i, y in enumerate(yard))
    return Measurement(engine="e", precision="", target="cpu", batch=1, clock="device", started="", blocks=blocks)


@pytest.mark.parametrize(
    ("state", "trouble"),
    [
        ({}, None),
        ({"other": 0.5}, "other-load"),
        ({"steal": 0.1}, "steal"),
        ({"mhz": 2000.0}, "frequency"),
        ({"gpu_mhz": 900}, "frequency"),
        ({"cpu_throttles": 9}, "throttled"),
        ({"gpu_throttles": ("power cap",)}, "throttled"),
    ],
)
def test_each_trouble_has_its_flag(state: dict[str, Any], trouble: str | None) -> None:
    moments = [Moment(at_ns=0, **CALM), Moment(at_ns=1, **CALM), Moment(at_ns=2, **{**CALM, **state})]
    found = flags_of(measurement([400] * 20), moments)
    assert [flag.trouble for flag in found] == ([trouble] if trouble else [])
    assert all(flag.text and flag.remedy for flag in found)


def test_the_yardstick_tells_of_a_moving_clock_that_the_kernel_does_not() -> None:
    [flag] = flags_of(measurement([400] * 10 + [520] * 10), [])
    assert flag.trouble == "frequency"
    assert "30%" in flag.text


def test_watch_sees_this_process_as_its_own() -> None:
    import time

    watch = Monitor()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    moment = watch.look()
    assert moment.at_ns > 0
    assert moment.load is not None
    if moment.other is not None:
        assert 0 <= moment.other <= 1
