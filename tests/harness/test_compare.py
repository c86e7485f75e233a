"""The gate on made-up runs: what it alarms on, what it stays quiet about, and what it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from toolkit.errors import MeasurementError
from toolkit.harness.answers import Answers
from toolkit.harness.compare import compare
from toolkit.harness.environment import read_environment
from toolkit.harness.measurement import Block, Measurement
from toolkit.harness.results import Results
from toolkit.harness.yardstick import YardstickCard

ENVIRONMENT = read_environment()
CARD = YardstickCard(work="a test's", numpy="0")


def measurement(seed: int, *, slower: float = 1.0, machine: float = 1.0, blocks: int = 20, **more: Any) -> Measurement:
    """Blocks of 1 ms samples with interruptions that double one in three; `machine` slows the yardstick as well."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(blocks):
        samples = 1e6 * slower * machine * rng.lognormal(0, 0.01, 12) * np.where(rng.random(12) < 0.33, 2, 1)
        yard = 4e5 * machine * rng.lognormal(0, 0.003, 3)
        times = tuple(samples.astype(int).tolist()), tuple(yard.astype(int).tolist())
        found.append(Block(at_ns=index, samples_ns=times[0], yardstick_ns=times[1]))
    fields: dict[str, Any] = {"engine": "e", "precision": "fp32", "target": "cpu", "batch": 1, "clock": "with-transfers"}
    return Measurement(**{**fields, "started": "now", "blocks": tuple(found), **more})


def results(*measurements: Measurement, **more: Any) -> Results:
    return Results(**{"environment": ENVIRONMENT, "measurements": measurements, "yardstick": CARD, **more})


@pytest.mark.parametrize(
    ("slower", "word"), [(1.0, "no change shown"), (1.1, "slower"), (0.8, "faster"), (1.015, "no change shown")]
)
def test_words(slower: float, word: str) -> None:
    found = compare(results(measurement(0)), results(measurement(1, slower=slower)))
    [difference] = found.differences
    assert difference.word == word
    assert found.regressed == (word == "slower")
    assert difference.low <= slower - 1 <= difference.high


def test_a_slower_machine_is_not_a_slower_engine_unless_nothing_tells_them_apart() -> None:
    old, new = results(measurement(0)), results(measurement(1, machine=1.5))
    assert not compare(old, new).regressed
    blind = compare(old, msgspec.structs.replace(new, yardstick=None))
    assert blind.regressed
    assert any("raw times" in note for note in blind.notes)


@pytest.mark.parametrize("lost", [(), (0,), (400_000, 0)])
def test_a_block_without_a_time_of_the_reference_kernel_is_no_regression(lost: tuple[int, ...]) -> None:
    """One side over its reference kernel beside raw times of the other differed by a factor of 400,000."""
    old, new = measurement(0), measurement(1)
    blocks = (msgspec.structs.replace(new.blocks[0], yardstick_ns=lost), *new.blocks[1:])
    new = msgspec.structs.replace(new, blocks=blocks)
    for sides in ((old, new), (new, old)):
        found = compare(*(results(side) for side in sides))
        assert found.differences[0].word == "no change shown"
        assert abs(found.differences[0].change) < 0.03
        assert any("so raw times were compared" in note for note in found.notes)
    assert not any("raw times" in note for note in compare(results(old), results(old)).notes)


def apart(measured: Measurement, far: int) -> Measurement:
    """The first `far` blocks taken while the cores lay apart, and slower for it."""
    blocks = [
        msgspec.structs.replace(b, handoff=(1.6, 1.7), samples_ns=tuple(2 * s for s in b.samples_ns))
        if i < far
        else msgspec.structs.replace(b, handoff=(0.9, 0.95))
        for i, b in enumerate(measured.blocks)
    ]
    return msgspec.structs.replace(measured, blocks=tuple(blocks))


def test_cores_that_lay_apart_are_no_slower_engine_and_a_slower_engine_is_still_found() -> None:
    old = results(apart(measurement(0), 3))
    assert not compare(old, results(apart(measurement(1), 12))).regressed
    assert compare(old, results(apart(measurement(2, slower=1.1), 12))).regressed
    [found] = compare(old, results(apart(measurement(3, slower=1.1), 16))).differences
    assert found.word == "cannot tell"
    assert "17 of 20 blocks in OLD and 4 of 20 in NEW" in found.note
    assert "--threads 1" in found.note


def test_another_number_of_threads_is_said() -> None:
    files = [results(measurement(i), manifests={"e": {"settings": {"threads": n}}}) for i, n in enumerate((1, 2))]
    assert "e: 1 threads in OLD, 2 in NEW." in compare(*files).notes


def test_false_alarms_and_finds_over_many_runs() -> None:
    runs = [results(measurement(i, engine="a"), measurement(1000 + i, engine="b")) for i in range(61)]
    slow = [results(measurement(2000 + i, engine="a", slower=1.1), measurement(3000 + i, engine="b")) for i in range(60)]
    assert sum(compare(runs[i], runs[i + 1]).regressed for i in range(60)) <= 3
    assert sum(compare(runs[i], slow[i]).differences[0].alarm for i in range(60)) >= 57


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clock": "device"}, "the clock is with-transfers in OLD and device in NEW"),
        ({"scenario": "offline"}, "the scenario is single-stream in OLD and offline in NEW"),
        ({"batch": 4}, "nothing in common|no engine, batch"),
        ({"engine": "other"}, "no engine, batch"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(MeasurementError, match=says):
        compare(results(measurement(0)), results(measurement(1, **change)))


def test_another_device_is_refused() -> None:
    elsewhere = msgspec.structs.replace(ENVIRONMENT, device="another machine")
    with pytest.raises(MeasurementError, match="NEW on another machine"):
        compare(results(measurement(0)), results(measurement(1), environment=elsewhere))


def test_failed_and_short_runs_cannot_tell() -> None:
    failed = compare(results(measurement(0)), results(measurement(1, failure="died")))
    short = compare(results(measurement(0, blocks=5)), results(measurement(1)))
    for found, says in ((failed, "NEW: died"), (short, "5 blocks are too few")):
        assert found.differences[0].word == "cannot tell"
        assert says in found.differences[0].text
        assert not found.regressed


def test_offline_compares_the_best_trials() -> None:
    def trials(slower: float, seed: int) -> Results:
        few = measurement(seed, scenario="offline", batch=4, blocks=1, images=10, duration_ns=10**9)
        best = measurement(seed, scenario="offline", batch=4, blocks=10, slower=slower, images=99, duration_ns=10**9, streams=2)
        return results(few, best)

    assert not compare(trials(1.0, 0), trials(1.0, 1)).regressed
    assert compare(trials(1.0, 0), trials(1.15, 1)).regressed


def test_lost_answers_are_a_regression_too() -> None:
    def answered(wrong: int) -> Results:
        ranks = tuple(1 if i < wrong else 0 for i in range(1000))
        answers = Answers(engine="e", data="d", top1=(0,) * 1000, labels=(0,) * 1000, ranks=ranks)
        return results(measurement(0), answers=(answers,))

    found = compare(answered(10), answered(40))
    assert [d.word for d in found.differences] == ["no change shown", "worse"]
    assert found.regressed
    assert not compare(answered(10), answered(12)).regressed


def test_markdown_is_a_table_that_names_the_alarm() -> None:
    text = compare(results(measurement(0)), results(measurement(1, slower=1.2), measurement(2, engine="new"))).markdown
    assert "1 of 1 comparisons got worse" in text
    assert "| **slower** |" in text
    assert "Only in NEW: new batch 1" in text
