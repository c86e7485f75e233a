"""A cache that nobody needs: whatever is wrong with it, work goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit.disk import cache
from toolkit.disk.drafts import DRAFT
from toolkit.disk.files import cache_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_was_kept_is_found() -> None:
    assert cache.find("plans", "x") is None
    assert cache.keep("plans", "x", b"payload")
    assert cache.find("plans", "x") == b"payload"
    assert cache.keep("plans", "x", b"")
    assert cache.find("plans", "x") == b""
    cache.forget("plans", "x")
    cache.forget("plans", "x")
    assert cache.find("plans", "x") is None


def test_a_damaged_entry_counts_as_none() -> None:
    cache.keep("plans", "x", b"payload")
    path = cache_folder() / "plans" / "x"
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], whole + b"y", bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + b"D"):
        path.write_bytes(damaged)
        assert cache.find("plans", "x") is None


def no_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)


def a_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "resnet-deploy").write_text("in the way")


def nowhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self/nothing")


def fifos(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "resnet-deploy" / "plans").mkdir(parents=True)
    os.mkfifo(folder / "resnet-deploy" / "plans" / "x")


@pytest.mark.skipif(os.name == "nt", reason="its folders are other ones")
@pytest.mark.parametrize("bad", [no_home, a_file, nowhere])
def test_a_cache_that_cannot_be_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Callable[..., None]) -> None:
    bad(monkeypatch, tmp_path)
    assert not cache.keep("plans", "x", b"payload")
    assert cache.find("plans", "x") is None
    assert cache.entries() == []
    cache.forget("plans", "x")
    cache.trim()


@pytest.mark.skipif(os.name == "nt", reason="it has no FIFOs")
def test_a_fifo_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifos(monkeypatch, tmp_path)
    assert cache.find("plans", "x") is None
    assert cache.keep("plans", "x", b"payload")
    assert cache.find("plans", "x") == b"payload"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path / "disk"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)


def test_a_full_and_a_read_only_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    assert cache.keep("plans", "x", b"1")
    assert not cache.keep("plans", "y", b"x" * 100_000)
    assert cache.find("plans", "x") == b"1"
    assert os.listdir(disk / "resnet-deploy" / "plans") == ["x"]
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert not cache.keep("plans", "z", b"1")
    assert cache.find("plans", "x") == b"1"


def test_all_kinds_share_one_limit_and_the_longest_unused_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LIMIT", 3 * 132)
    for age, name in enumerate("abc"):
        cache.keep("plans" if age % 2 else "ranges", name, b"x" * 100)
        os.utime(cache_folder() / ("plans" if age % 2 else "ranges") / name, (1e9 + age, 1e9 + age))
    assert cache.find("ranges", "a")  # used now
    cache.keep("threads", "d", b"x" * 100)
    assert sorted(entry.path.name for entry in cache.entries()) == ["a", "c", "d"]
    cache.keep("threads", "e", b"x" * 1000)  # larger than all that is allowed: it stays alone
    assert [entry.path.name for entry in cache.entries()] == ["e"]


def test_an_entry_from_the_future_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written while the clock stood in 2100."""
    monkeypatch.setattr(cache, "LIMIT", 2 * 132)
    for name in "ab":
        cache.keep("plans", name, b"x" * 100)
    os.utime(cache_folder() / "plans" / "b", (4.1e9, 4.1e9))
    cache.keep("plans", "c", b"x" * 100)
    assert sorted(entry.path.name for entry in cache.entries()) == ["a", "c"]


@pytest.mark.parametrize("gone", ["a", "z"])
def test_what_another_process_removes_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    """Two cleanings at once, or one beside a build that trims."""
    for name in "az":
        cache.keep("plans", name, b"1")
    seen = Path.lstat

    def late(path: Path) -> os.stat_result:
        if path.name == gone:
            path.unlink()
        return seen(path)

    monkeypatch.setattr(Path, "lstat", late)
    assert cache.clean() == (1, 33)


def test_a_folder_that_has_just_gone_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("plans", "ranges", "threads"):
        cache.keep(kind, "x", b"1")
    listed = os.scandir

    def scan(folder: Path) -> Any:
        if Path(folder).name == "ranges":
            raise FileNotFoundError(folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scan)
    assert sorted(entry.path.parent.name for entry in cache.entries()) == ["plans", "threads"]


def test_cleaning_removes_all_and_drafts_of_the_dead_go_before(tmp_path: Path) -> None:
    cache.keep("plans", "x", b"1")
    (cache_folder() / "resnet50-0676ba61.pth").write_bytes(b"download")
    (cache_folder() / "plans" / f".y.abcdefgh{DRAFT}").write_bytes(b"half")
    cache.keep("plans", "z", b"1")
    assert sorted(os.listdir(cache_folder() / "plans")) == ["x", "z"]
    (tmp_path / "thesis").write_text("years")
    (cache_folder() / "plans" / "link").symlink_to(tmp_path / "thesis")
    (cache_folder() / "folder").symlink_to(tmp_path)
    count, size = cache.clean()
    assert count == 5
    assert size >= 33 + 33 + 8
    assert not cache_folder().exists()
    assert (tmp_path / "thesis").read_text() == "years"
    assert cache.clean() == (0, 0)
