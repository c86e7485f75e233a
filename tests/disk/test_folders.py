"""A folder takes another's place whole or not at all: killed at any moment, beside other writers, on a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from toolkit.disk import drafts, files, folders
from toolkit.disk.drafts import DRAFT, scratch, sweep
from toolkit.disk.files import write_atomically
from toolkit.disk.folders import new_folder, settled
from toolkit.errors import EngineError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks, signals and mounts are another matter there")
NAMES = ("manifest.json", "model.onnx", "ranges.json")
ENOUGH = 6  # pages of 4 KiB for three files of 5,000 bytes
CALLS = ("mkdir", "open", "write", "fsync", "chmod", "rename", "replace", "unlink", "rmdir")  # of `os`, which change a disk


def build(path: Path, word: str) -> None:
    """As an engine is built: every file says, in a word of five letters, which generation it is of."""
    with new_folder(path) as draft:
        for name in NAMES:
            write_atomically(draft / name, word.encode() * 1000)


def generation(path: Path) -> str:
    """The one word that all files of a folder say."""
    folder = settled(path)
    words = {(folder / name).read_text() for name in NAMES}
    assert len(words) == 1, f"files of {len(words)} generations"
    return words.pop()[:5]


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def no_exchange(one: Path, other: Path) -> bool:
    """As on a system that has no renameat2."""
    return False


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a disk flushes for some milliseconds a file."""
    place = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path)
    yield Path(place)
    shutil.rmtree(place)


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_exchange", no_exchange)
    return str(request.param)


def killed_at(moment: int, work: Callable[[], None]) -> bool:
    """Do the work in a child that is ended by SIGKILL right before its system call number `moment`; False where it had fewer."""
    child = os.fork()
    if child == 0:
        left = [moment]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def instead(*given: Any, **named: Any) -> Any:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return call(*given, **named)

            return instead

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        folders._exchange = counted(folders._exchange)  # a system call of its own
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("before", ["first", None])
def test_killed_before_any_system_call_it_is_the_old_or_the_new(quick: Path, way: str, before: str | None) -> None:
    seen = set()
    for moment in range(200):
        place = quick / str(moment)
        place.mkdir()
        engine = place / "engine"
        if before:
            build(engine, before)
        finished = not killed_at(moment, lambda engine=engine: build(engine, "after"))  # type: ignore[misc]
        folder = settled(engine)
        seen.add(generation(engine) if folder.exists() else None)
        assert folder == engine
        build(engine, "third")  # the next good run
        assert generation(engine) == "third"
        assert entries(place) == ["engine"], "litter of a killed run"
        if finished:
            break
    assert moment > 15
    assert seen == {before, "after"}


def test_a_file_is_the_old_or_the_new_and_no_draft_stays(quick: Path) -> None:
    path = quick / "results.json"
    for moment in range(50):
        write_atomically(path, b"old" * 1000)
        finished = not killed_at(moment, lambda: write_atomically(path, b"new" * 1000))
        assert path.read_bytes() in (b"old" * 1000, b"new" * 1000)
        write_atomically(path, b"old")
        assert entries(quick) == ["results.json"]
        if finished:
            break
    assert moment > 4


def test_two_writers_and_a_reader(quick: Path, way: str) -> None:
    """The words are of one length, so that a mixture could not be told by a size."""
    engine, failures, done = quick / "engine", [], threading.Event()
    build(engine, "first")

    def writer(word: str) -> None:
        try:
            for _ in range(40):
                build(engine, word)
        except BaseException as error:
            failures.append(error)

    def reader() -> None:
        while not done.is_set():
            try:
                handle = os.open(settled(engine), os.O_RDONLY)
            except FileNotFoundError:
                if way == "exchange":
                    failures.append(AssertionError("the engine was away"))
                continue
            with suppress(FileNotFoundError):  # that generation is being removed: look again
                words = {files.read_regular(Path(name), folder=handle) for name in NAMES}
                if len(words) > 1:
                    failures.append(AssertionError("two generations"))
            os.close(handle)

    watching = threading.Thread(target=reader)
    writers = [threading.Thread(target=writer, args=(word,)) for word in ("alpha", "gamma")]
    for thread in (watching, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    watching.join()
    assert failures == []
    assert generation(engine) in ("alpha", "gamma")
    assert entries(quick) == ["engine"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_work_that_fails_leaves_what_was_there(tmp_path: Path, stop: type[BaseException]) -> None:
    build(tmp_path / "engine", "first")

    def broken() -> None:
        with new_folder(tmp_path / "engine") as draft:
            (draft / "manifest.json").write_text("after")
            raise stop

    with pytest.raises(stop):
        broken()
    assert generation(tmp_path / "engine") == "first"
    assert entries(tmp_path) == ["engine"]


def test_a_living_writer_keeps_its_draft(tmp_path: Path) -> None:
    with new_folder(tmp_path / "slow") as draft:
        build(tmp_path / "quick", "first")
        assert draft.is_dir()
        (draft / "manifest.json").write_text("{}")
    assert entries(tmp_path) == ["quick", "slow"]


def test_only_drafts_of_ours_are_swept(tmp_path: Path) -> None:
    kept = [".engine.original", ".engine.20261127", "engine.draft", ".engine.abcdefgh", "x.partial"]
    for name in kept:
        (tmp_path / name).write_text("thesis")
    (tmp_path / f".engine.abcdefgh{DRAFT}").mkdir()
    (tmp_path / f".other.abcdefgh{DRAFT}").write_text("half")
    build(tmp_path / "engine", "first")
    assert entries(tmp_path) == sorted([*kept, "engine"])


def test_a_draft_is_not_swept_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    (tmp_path / f".engine.abcdefgh{DRAFT}").symlink_to(tmp_path / "thesis")
    sweep(tmp_path)
    assert (tmp_path / "thesis" / "chapter").read_text() == "1"


def test_what_a_swap_moved_aside_is_moved_back(tmp_path: Path) -> None:
    build(tmp_path / "engine", "first")
    os.rename(tmp_path / "engine", tmp_path / ".engine.abcdefgh.old")
    build(tmp_path / "other", "other")
    os.rename(tmp_path / "other", tmp_path / ".engine.x.old")  # not of this name's shape
    assert generation(tmp_path / "engine") == "first"
    assert entries(tmp_path) == [".engine.x.old", "engine"]


def test_what_was_moved_aside_goes_once_there_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / ".engine.abcdefgh.old").mkdir()
    build(tmp_path / "engine", "first")
    build(tmp_path / "engine", "after")
    assert entries(tmp_path) == ["engine"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dead link", "FIFO"])
def test_what_is_no_engine_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "engine"
    if kind == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("years")
    elif kind == "file":
        path.write_text("years")
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        build(tmp_path / "real", "first")
        path.symlink_to(tmp_path / ("real" if kind == "link" else "nothing"))
    before = entries(tmp_path)
    with pytest.raises(EngineError, match="not replaced"), new_folder(path):
        pytest.fail("the work had begun")
    assert entries(tmp_path) == before
    if kind == "folder":
        assert (path / "thesis.tex").read_text() == "years"


def test_what_came_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    def work() -> None:
        with new_folder(tmp_path / "engine") as draft:
            (draft / "manifest.json").write_text("{}")
            (tmp_path / "engine").mkdir()
            (tmp_path / "engine" / "thesis.tex").write_text("years")

    with pytest.raises(EngineError, match=r"thesis\.tex"):
        work()
    assert (tmp_path / "engine" / "thesis.tex").exists()
    assert entries(tmp_path) == ["engine"]


@pytest.mark.parametrize("before", [None, "first"])
def test_what_comes_between_the_look_and_the_swap_is_given_back(tmp_path: Path, way: str, before: str | None) -> None:
    """A person puts a folder there, or in the engine's place, right after the last look: it is told by the swap itself."""
    engine, looks = tmp_path / "engine", []
    if before is not None:
        build(engine, before)

    def look(path: Path) -> None:
        folders.refuse_foreign(path)
        if path == engine:
            looks.append(path)
        if len(looks) == 2:
            shutil.rmtree(engine, ignore_errors=True)
            engine.mkdir()
            (engine / "thesis.tex").write_text("years")
            looks.append(path)

    with pytest.raises(EngineError, match=r"engine is not an engine, and holds thesis\.tex"), new_folder(engine, look) as draft:
        (draft / "manifest.json").write_text("{}")
    assert (engine / "thesis.tex").read_text() == "years"
    assert entries(tmp_path) == ["engine"]


def test_a_folder_that_goes_while_it_is_looked_at_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at what it is and the look into it another writer has moved it aside."""
    (tmp_path / "engine").mkdir()
    seen = Path.lstat

    def moved(path: Path) -> os.stat_result:
        state = seen(path)
        if path.name == "engine" and path.exists():
            os.rename(path, tmp_path / "aside")
        return state

    monkeypatch.setattr(Path, "lstat", moved)
    folders.refuse_foreign(tmp_path / "engine")
    assert entries(tmp_path) == ["aside"]


def test_an_empty_folder_is_taken(tmp_path: Path, way: str) -> None:
    (tmp_path / "engine").mkdir()
    build(tmp_path / "engine", "first")
    assert generation(tmp_path / "engine") == "first"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY])
def test_a_folder_that_cannot_be_renamed_is_filled_anew(quick: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    engine = quick / "engine"
    build(engine, "first")
    (engine / "layers.json").write_text("of the old one")

    def stuck(one: Path, other: Path) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folders, "_exchange", stuck)
    build(engine, "after")
    assert generation(engine) == "after"
    assert entries(engine) == sorted(NAMES)
    seen = set()
    for moment in range(200):
        finished = not killed_at(moment, lambda: build(engine, "third"))
        seen.add(generation(engine))
        build(engine, "after")
        assert entries(engine) == sorted(NAMES)
        if finished:
            break
    assert seen == {"after", "third"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB in memory; skips where this user may mount none."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_place_for_temporary_files_says_where_it_is(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(small_disk))
    with pytest.raises(OSError, match=rf"No space left on device: '{small_disk}'"), scratch() as folder:
        (folder / "model.onnx").write_bytes(b"x" * (1 << 17))
    assert entries(small_disk) == []


def test_a_mounted_folder_and_a_mounted_file_are_filled_anew(small_disk: Path, tmp_path: Path) -> None:
    build(small_disk, "first")
    build(small_disk, "after")
    assert generation(small_disk) == "after"
    assert entries(small_disk) == sorted(NAMES)
    (tmp_path / "outside").write_text("x")
    (tmp_path / "inside").write_text("y")
    subprocess.run(["mount", "--bind", tmp_path / "outside", tmp_path / "inside"], check=True)
    try:
        write_atomically(tmp_path / "inside", b"new")
        assert (tmp_path / "outside").read_text() == "new"
    finally:
        subprocess.run(["umount", tmp_path / "inside"], check=True)
    assert entries(tmp_path) == ["disk", "inside", "outside"]


@pytest.mark.parametrize("free", range(0, 13, 2))
def test_a_full_disk_leaves_the_old_folder(small_disk: Path, free: int) -> None:
    """`free` pages of 4 KiB are left: each write in turn is the one that does not fit."""
    engine = small_disk / "engine"
    build(engine, "first")
    blocks = os.statvfs(small_disk).f_bavail
    (small_disk / "filler").write_bytes(b"x" * 4096 * max(0, blocks - free))
    if free < ENOUGH:
        with pytest.raises(OSError, match=rf"No space left on device: '{small_disk}") as failed:  # it says where
            build(engine, "after")
        assert failed.value.errno == errno.ENOSPC
        assert generation(engine) == "first"
    else:
        build(engine, "after")
        assert generation(engine) == "after"
    assert entries(small_disk) == ["engine", "filler"]


def test_a_scratch_folder_of_a_killed_process_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    program = """
import os
from toolkit.disk.drafts import scratch
with scratch() as folder:
    (folder / "model.onnx").write_text("x")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert len(entries(tmp_path)) == 1
    with scratch() as folder:
        assert entries(tmp_path) == [folder.name]
        assert folder.stat().st_mode & 0o777 == 0o700  # a model is nobody else's, on a machine that many share
    assert entries(tmp_path) == []


def test_a_lock_that_a_stranger_holds_is_not_waited_for_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(folders, "PATIENCE", 0.05)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    start = time.monotonic()
    build(tmp_path / "engine", "first")
    assert time.monotonic() - start < 5
    os.close(handle)
    assert generation(tmp_path / "engine") == "first"


def test_a_draft_that_a_sweep_took_first_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = drafts._claim, []

    def beaten(handle: int, draft: Path) -> bool:
        if not taken:
            taken.append(draft)
            drafts.remove(draft)
        return real(handle, draft)

    monkeypatch.setattr(drafts, "_claim", beaten)
    write_atomically(tmp_path / "x", b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert entries(tmp_path) == ["x"]


def test_a_folder_inside_a_scratch_folder_is_swapped_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scratch folder is locked by its maker for as long as it is used; to wait for that lock would be to wait for oneself."""
    monkeypatch.setattr(folders.time, "sleep", lambda seconds: pytest.fail("it waits for its own lock"))
    with scratch() as place:
        for text in ("one", "two"):
            with new_folder(place / "engine") as draft:
                (draft / "manifest.json").write_text(text)
        assert (place / "engine" / "manifest.json").read_text() == "two"
