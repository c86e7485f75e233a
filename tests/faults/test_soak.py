"""The soak in seconds: 8 threads, two engines that take each other's place, and nothing that stays behind."""

from __future__ import annotations

import os

import pytest

from tests.faults.soak import Sample, Soak, soak


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="it counts in /proc")
def test_what_a_process_holds_does_not_grow() -> None:
    found = soak(calls=4000, rounds=8)
    assert found.faults == []
    assert found.grown() == []
    assert found.calls >= 4000
    assert min(found.opened, found.batched) > 0
    assert found.replaced >= 8


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (Sample(9, 9, 100 << 20, 6, 11), []),
        (Sample(9, 9, 100 << 20, 7, 11), ["descriptors: 6 -> 7"]),
        (Sample(9, 9, 100 << 20, 6, 12), ["threads: 11 -> 12"]),
        (Sample(9, 9, 130 << 20, 6, 11), ["memory: 100 -> 130 MiB"]),
    ],
)
def test_what_grows_is_said(last: Sample, words: list[str]) -> None:
    first = Sample(1, 1, 100 << 20, 6, 11)
    assert Soak([first, first, first, first, last], 9, 0, 0, 0, []).grown() == words
