"""Compiled loops without a place for numba's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
from toolkit.calibration.compiled import compiled
@compiled
def plus(a, b):
    return a + b
print(plus(1, 2))
"""


def counted(folder: Path, cache: Path) -> str:
    (folder / "program.py").write_text(COUNT)
    command = [sys.executable, folder / "program.py"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_cache_a_full_disk_and_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert counted(tmp_path, tmp_path / "file" / "cache") == "3\n"
    (tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path / "disk"], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        assert counted(tmp_path, tmp_path / "disk") == "3\n"
    finally:
        subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)
    assert counted(tmp_path, tmp_path / "cache") == "3\n"
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert counted(tmp_path, tmp_path / "cache") == "3\n"
