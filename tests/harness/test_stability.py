"""Flags from the machine's state; each one says what to do."""

from __future__ import annotations

from typing import Any

import msgspec
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


@pytest.mark.parametrize(("step", "words"), [(10, "grew 18.2% slower"), (-5, "grew 10.5% faster"), (1, None), (0, None)])
def test_drift_is_a_trend_and_large_enough(step: int, words: str | None) -> None:
    blocks = tuple(Block(at_ns=i, samples_ns=(1000 + step * i,)) for i in range(21))
    found = flags_of(msgspec.structs.replace(measurement([]), blocks=blocks), [])
    assert [(flag.trouble, flag.text.partition(" from")[0]) for flag in found] == ([("drift", words)] if words else [])
    served = msgspec.structs.replace(measurement([]), blocks=blocks, scenario="server")
    assert flags_of(served, []) == ()  # under load a queue may grow


def test_noise_without_a_trend_is_no_drift() -> None:
    blocks = tuple(Block(at_ns=i, samples_ns=(1000 + 300 * (i % 2),)) for i in range(20))
    assert flags_of(msgspec.structs.replace(measurement([]), blocks=blocks), []) == ()


@pytest.mark.parametrize(("apart", "flagged"), [(5, False), (6, True)])
def test_cores_are_far_apart_where_more_than_a_quarter_of_the_blocks_say_so(apart: int, flagged: bool) -> None:
    blocks = tuple(Block(at_ns=i, samples_ns=(1000,), handoff=(1.5 if i < apart else 1.0,)) for i in range(20))
    found = flags_of(msgspec.structs.replace(measurement([]), blocks=blocks), [])
    assert [flag.trouble for flag in found] == (["far-cores"] if flagged else [])
    assert all(f"in {apart} of 20 blocks" in flag.text and "--threads 1" in flag.remedy for flag in found)


@pytest.mark.parametrize(("blocks", "flagged"), [(7, False), (8, True)])
def test_the_yardstick_tells_nothing_of_a_few_blocks(blocks: int, flagged: bool) -> None:
    found = flags_of(measurement([400] * (blocks - 3) + [520] * 3), [])
    assert [flag.trouble for flag in found] == (["frequency"] if flagged else [])


def test_the_first_moment_is_only_where_counting_begins() -> None:
    busy = Moment(at_ns=0, **{**CALM, "other": 0.9, "steal": 0.9})
    assert flags_of(measurement([]), [busy, Moment(at_ns=1, **CALM)]) == ()
    found = flags_of(measurement([]), [Moment(at_ns=0, **CALM), Moment(at_ns=1, **{**CALM, "other": 0.9, "steal": 0.9})])
    assert [flag.trouble for flag in found] == ["other-load", "steal"]


def test_a_clock_that_moves_is_named_with_its_own_remedy() -> None:
    def one(**state: Any) -> tuple[str, str]:
        [flag] = flags_of(measurement([]), [Moment(at_ns=0, **CALM), Moment(at_ns=1, **{**CALM, **state})])
        return flag.text, flag.remedy

    assert one(mhz=2000.0) == ("the CPU clock moved between 2000 and 3000 MHz", "cpupower frequency-set -g performance")
    assert one(gpu_mhz=900) == ("the GPU clock moved between 900 and 1500 MHz", "nvidia-smi --lock-gpu-clocks=MHZ")
    assert one(cpu_throttles=9)[0] == "throttled: the CPU ran too hot 5 times"
    assert one(gpu_throttles=("power cap", "heat"))[0] == "throttled: heat, power cap"
    assert flags_of(measurement([]), [Moment(at_ns=0, **CALM), Moment(at_ns=1, **{**CALM, "mhz": 2900.0})]) == ()


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
