"""examples/gate.sh: which exit codes of its commands fail a pull request. `build` and `bench` hand out results made here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.report.conftest import measure
from toolkit.harness.results import Results

ROOT = Path(__file__).parents[2]
TOOLKIT = f"""#!/bin/sh
case $1 in
build) case "$*" in *--no-proof*) exit 0 ;; esac; exit "$(cat refused 2>/dev/null || echo 0)" ;;
bench) while [ "$1" != -o ]; do shift; done; cp "bench-$(basename "$2")" "$2" ;;
*) PYTHONPATH="{ROOT}" exec "{sys.executable}" -m toolkit "$@" ;;
esac
"""


def prepare(folder: Path, results: Results, **times: float | dict[str, float]) -> None:
    """Two checkouts, whose benches leave one engine of so many milliseconds, or several by name: old_1, new_1 and old_2."""
    for number, (name, ms) in enumerate(times.items()):
        side = folder / name[:3]
        side.mkdir(exist_ok=True)
        (side / "mine.toml").touch()
        random = np.random.default_rng(number)
        by_name = ms if isinstance(ms, dict) else {"fp32": ms}
        taken = (measure(engine, "fp32", each, 1, random) for engine, each in by_name.items())
        taken = tuple(msgspec.structs.replace(one, interleaved_with=()) for one in taken)
        made = msgspec.structs.replace(results, measurements=taken, answers=(), verdicts=(), layers=(), failures={})
        made.write(side / f"bench-{name.replace('_', '-')}.json")
    command = folder / "toolkit"
    command.write_text(TOOLKIT)
    command.chmod(0o755)


def gate(folder: Path) -> tuple[int, str]:
    """The exit code and what was printed."""
    command = [ROOT / "examples" / "gate.sh", "old", "new", "mine.toml", "engines/built/mine"]
    env = {**os.environ, "TOOLKIT": str(folder / "toolkit")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old_1", "new_1", "old_2", "code"),
    [(2.0, 2.0, 2.0, 0), (2.0, 2.4, 2.0, 1), (2.0, 2.4, 2.4, 0), (2.0, 1.5, 2.0, 0)],
    ids=["equal", "slower", "the machine became slower", "faster"],
)
def test_only_what_is_slower_than_both_measurements_of_the_base_fails(old_1, new_1, old_2, code, results, tmp_path):
    prepare(tmp_path, results, old_1=old_1, new_1=new_1, old_2=old_2)
    found, said = gate(tmp_path)
    assert found == code, said
    assert said.count("### ") == 2
    assert ("slower" in said) == (new_1 > old_1)


def test_two_engines_that_are_slower_once_each_do_not_fail(results, tmp_path):
    prepare(tmp_path, results, old_1={"a": 2.0, "b": 2.4}, new_1={"a": 2.4, "b": 2.4}, old_2={"a": 2.4, "b": 2.0})
    found, said = gate(tmp_path)
    assert said.count("**slower**") == 2
    assert found == 0, said


@pytest.mark.parametrize(("name", "code"), [("reference", 0), ("b", 1)])
def test_the_reference_is_not_shipped_and_fails_nothing(name, code, results, tmp_path):
    prepare(tmp_path, results, old_1={name: 2.0, "a": 2.0}, new_1={name: 2.4, "a": 2.0}, old_2={name: 2.0, "a": 2.0})
    found, said = gate(tmp_path)
    assert said.count("**slower**") == 2
    assert found == code, said
    assert ("gate: failed; worse than both measurements of old:" in said) == bool(code)


@pytest.mark.parametrize("code", [1, 3])
def test_a_refused_or_undecided_engine_fails_before_anything_is_measured(code, results, tmp_path):
    prepare(tmp_path, results, old_1=2.0, new_1=2.0, old_2=2.0)
    (tmp_path / "new" / "refused").write_text(str(code))
    assert gate(tmp_path)[0] == code
    assert not list(tmp_path.glob("*.json"))


def test_a_base_that_is_refused_fails_nothing(results, tmp_path):
    """Else the change that mends it could not pass."""
    prepare(tmp_path, results, old_1=2.0, new_1=2.0, old_2=2.0)
    (tmp_path / "old" / "refused").write_text("1")
    found, said = gate(tmp_path)
    assert found == 0, said


def test_a_base_without_the_recipe_leaves_the_verdict_alone(results, tmp_path):
    prepare(tmp_path, results, old_1=2.0, new_1=2.0, old_2=2.0)
    (tmp_path / "old" / "mine.toml").unlink()
    found, said = gate(tmp_path)
    assert found == 0 and "old has no mine.toml" in said
    (tmp_path / "new" / "refused").write_text("1")
    assert gate(tmp_path)[0] == 1


def test_runs_that_tell_nothing_do_not_pass(results, tmp_path):
    prepare(tmp_path, results, old_1=2.0, new_1=2.0, old_2=2.0)
    path = tmp_path / "new" / "bench-new-1.json"
    made = Results.read(path)
    few = tuple(msgspec.structs.replace(m, blocks=m.blocks[:2]) for m in made.measurements)
    msgspec.structs.replace(made, measurements=few).write(path)
    found, said = gate(tmp_path)
    assert found == 3 and "### No conclusion: measure longer" in said, said


def test_results_that_cannot_be_compared_do_not_pass(results, tmp_path):
    prepare(tmp_path, results, old_1=2.0, new_1=2.0, old_2=2.0)
    (tmp_path / "old" / "bench-old-2.json").write_text("{")
    found, said = gate(tmp_path)
    assert found == 2
    assert "old-2.json is not a complete JSON file" in said
