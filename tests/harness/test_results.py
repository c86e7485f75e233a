"""The results file: what goes in comes out; what is damaged is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.fuzz.bounds import bounds
from toolkit.errors import MeasurementError
from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.environment import read_environment
from toolkit.harness.measurement import Block, Measurement
from toolkit.harness.results import Results
from toolkit.harness.share import hidden


@pytest.fixture
def results() -> Results:
    blocks = (Block(at_ns=5, samples_ns=(1_000_000, 1_100_000), yardstick_ns=(7, 8)), Block(at_ns=9, samples_ns=(900_000,)))
    what = {"engine": "e", "precision": "int8", "target": "cpu", "batch": 4, "clock": "device", "started": "now"}
    measured = Measurement(blocks=blocks, images=12, duration_ns=3_000_000, **what)  # type: ignore[arg-type]
    return Results(environment=read_environment(), measurements=(measured,), failures={"gone": "died"})


def test_round_trip(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.write(path)
    back = Results.read(path)
    assert back == results
    assert back.engines == ("e", "gone")
    [measured] = back.of("e")
    assert measured.seconds.tolist() == pytest.approx([0.001, 0.0011, 0.0009])
    assert measured.groups.tolist() == [0, 0, 1]
    assert measured.throughput == pytest.approx(4000)
    assert measured.images_per_joule is None


def test_a_file_cut_short_anywhere_is_refused(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.write(path)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 2, max(1, len(whole) // 40)):
        path.write_bytes(whole[:end])
        with pytest.raises(MeasurementError, match=r"r\.json"):
            Results.read(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda raw: raw | {"version": 99}, "format version 99, this toolkit reads 1"),
        (lambda raw: {"hello": 1}, "does not hold results"),
        (lambda raw: [1, 2], "does not hold results"),
        (lambda raw: raw | {"measurements": [{"engine": 3}]}, "damaged"),
        (lambda raw: raw | {"surprise": 1}, "damaged"),
    ],
)
def test_foreign_files(results: Results, tmp_path: Path, change: object, says: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(change(msgspec.to_builtins(results))))  # type: ignore[operator]
    with pytest.raises(MeasurementError, match=says) as error:
        Results.read(path)
    assert error.value.remedy


def test_no_file_and_no_folder(results: Results, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no results file"):
        Results.read(tmp_path / "none.json")
    with pytest.raises(MeasurementError, match="cannot write"):
        results.write(tmp_path / "none" / "r.json")


def test_the_environment_knows_this_machine() -> None:
    import os

    found = read_environment()
    assert found.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert found.versions["numpy"] == __import__("numpy").__version__
    assert found.cpu_flags
    assert (found.gpus == ()) == bool(found.gpu_note)


@pytest.mark.parametrize(
    "card",
    [{"classes": 3}, {"notes": {}}, {"settings": {"threads": "x"}}, {"versions": [1]}, {"hashes": 5}, {"name": None}],
)
def test_a_manifest_of_other_types_is_refused(results: Results, tmp_path: Path, card: dict[str, object]) -> None:
    path = tmp_path / "results.json"
    msgspec.structs.replace(results, manifests={"x": card}).write(path)
    with pytest.raises(MeasurementError, match="is damaged"):
        Results.read(path)
    msgspec.structs.replace(results, manifests={"x": {"name": "x", "of tomorrow": 1}}).write(path)
    Results.read(path)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("measurements", {"batch": -1}),
        ("measurements", {"batch": 0}),
        ("measurements", {"duration_ns": -1}),
        ("measurements", {"joules": -1.0}),
        ("answers", {"labels": [1]}),
        ("answers", {"ranks": [0, 0, -1]}),
        ("verdicts", {"images": 0, "disagreements": [1]}),
        ("verdicts", {"agreement": 2.0}),
        ("verdicts", {"margins": [0.5] * 9}),
        ("peaks", {"bytes": 0.0}),
        ("peaks", {"macs": {"fp32": 0.0}}),
        ("work", {"activation_bytes": -1}),
        ("seed", 10**400),
    ],
)
def test_numbers_that_no_bench_writes_are_refused(tmp_path: Path, kind: str, change: Any) -> None:
    """Each would end a report in the middle."""
    verdict = compare_accuracy(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), None, name="x")
    whole: dict[str, Any] = {
        "measurements": {"engine": "x", "precision": "fp32", "target": "cpu", "batch": 1, "clock": "device", "started": ""},
        "answers": {"engine": "x", "data": "", "top1": [0, 1, 2], "labels": [0, 1, 2]},
        "verdicts": msgspec.to_builtins(verdict),
        "peaks": {"macs": {"fp32": 1.0}, "bytes": 1.0, "threads": 1, "how": ""},
        "work": {"macs": 1, "weight_bytes": 0, "activation_bytes": 0},
    }

    def file(parts: dict[str, Any]) -> Path:
        held = {"environment": read_environment(), "version": 1, "peaks": parts["peaks"], "work": {"x": parts["work"]}}
        held |= {name: [parts[name]] for name in ("measurements", "answers", "verdicts")}
        (tmp_path / "r.json").write_bytes(msgspec.json.encode(held))
        return tmp_path / "r.json"

    Results.read(file(whole))
    path = file(whole | {kind: whole[kind] | change} if kind in whole else whole)
    if kind not in whole:
        path.write_bytes(path.read_bytes()[:-1] + f', "{kind}": {change}}}'.encode())
    with pytest.raises(MeasurementError, match=r"is damaged|bits is beyond any"):
        Results.read(path)


@pytest.mark.parametrize("text", ["a" * 100_000, "a@" * 50_000, "/a" * 50_000, "a." * 50_000])
def test_to_hide_places_takes_no_longer_than_the_text(text: str) -> None:
    """It took a minute for a name of 100,000 letters."""
    with bounds():
        hidden(text)
    assert hidden("x ~me+you@host.org, C:\\a\\b img/s " + "a" * 100 + "@b.c") == "x PATHPATH, PATH img/s PATH"
