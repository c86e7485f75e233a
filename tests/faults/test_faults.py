"""Whole commands that are killed, refused by the system, or run at the same time. `nightly.py` tries more, and other faults.

The kill points here are the calls that Python makes; `tests/test_crashes.py` and the nightly kill between system calls.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.nightly import finish, start
from tests.faults.place import COMMANDS, lay_out, wrong

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes and signals are another matter there")


@pytest.mark.parametrize(
    ("command", "points", "error"),
    [
        ("pack", 12, None),
        ("pack", 4, "EIO"),
        ("calibrate", 3, None),
        ("swap", 4, None),
        ("tune", 3, None),
        ("build", 3, None),
        ("build", 3, "ENOSPC"),
    ],
)
def test_a_command_that_fails_at_any_call_leaves_the_old_or_the_new(
    tmp_path: Path, command: str, points: int, error: str | None
) -> None:
    words = [sys.executable, "-m", "tests.faults.forks", str(tmp_path / "place"), command, str(points), *filter(None, [error])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *found, last = done.stdout.splitlines()
    assert found == []
    assert int(last.split()[0]) >= min(points, 3)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
@pytest.mark.parametrize("clock", ["1970-01-02 00:00:00", "2100-01-01 00:00:00"])
def test_whatever_year_it_is(tmp_path: Path, clock: str) -> None:
    lay_out(tmp_path / "place")
    for name in ("build", "pack"):
        command = COMMANDS[name]
        code, said = finish(start(tmp_path / "place", command, ["faketime", clock]))
        good = command.read(tmp_path / "place" / command.output)
        assert wrong(tmp_path / "place", command, code, said, [good]) is None
        if name == "build":
            (tmp_path / "place" / "built").rename(tmp_path / "place" / "made")
