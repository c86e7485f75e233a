"""System calls themselves fail, or the process is killed as it enters one: strace injects both, whatever code makes the call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk.test_folders import build, entries, generation

ROOT = Path(__file__).parent.parent
CALLS = ("mkdir", "write", "fsync", "chmod", "rename", "renameat2", "unlinkat", "rmdir")  # that a swap makes on Linux
BUILD = """
import os, sys
from pathlib import Path
from toolkit.disk.folders import new_folder
from toolkit.disk.files import write_atomically
try:
    with new_folder(Path(sys.argv[1], "engine")) as draft:
        for name in ("manifest.json", "model.onnx", "ranges.json"):
            write_atomically(draft / name, b"after" * 1000)
except OSError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    build(folder / "engine", "first")
    yield folder
    shutil.rmtree(folder)


def traced(place: Path, call: str, inject: str, when: int) -> subprocess.CompletedProcess[str]:
    """The build, with `inject` at the `when`-th time that it makes the system call `call`."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    rules = ["-e", f"trace={call}", "-e", f"inject={call}:{inject}:when={when}"]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *rules, sys.executable, "-B", "-c", BUILD, place]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    if "ptrace" in done.stderr.lower():
        pytest.skip("this machine lets nothing be traced")
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("call", CALLS)
def test_killed_as_it_enters_a_system_call_the_engine_is_whole(place: Path, call: str) -> None:
    seen = []
    for when in range(1, 30):
        done = traced(place, call, "signal=SIGKILL", when)
        seen.append(generation(place / "engine"))
        build(place / "engine", "first")
        assert entries(place) == ["engine"]
        if done.returncode == 0:
            break
    assert seen[-1] == "after"
    assert ("first" in seen) == (call not in ("unlinkat", "rmdir"))  # by which the old one goes, after the exchange


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EXDEV"])
def test_a_system_call_that_fails_leaves_one_whole_engine(place: Path, call: str, error: str) -> None:
    for when in (1, 2):
        done = traced(place, call, f"error={error}", when)
        assert generation(place / "engine") == ("after" if done.returncode == 0 else "first"), done.stderr
        build(place / "engine", "first")
        assert entries(place) == ["engine"]
