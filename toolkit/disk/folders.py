"""Folders: a new one takes the place of an old one in one step, and what a killed process left halfway is repaired.

Linux exchanges two names in one system call. Elsewhere it takes two renames, and whoever looks between them, or after a kill
between them, finds the old folder by `settled`. A folder that cannot be renamed at all (a mount, or a folder in a lower layer
of a container's image) is filled again, from a whole copy inside it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from toolkit.disk.drafts import DRAFT, draft_folder, lock, remove, sweep
from toolkit.disk.files import CANNOT_MOVE, read_regular, sync_folder, write_atomically
from toolkit.errors import EngineError

NEXT = ".next"  # in a folder that cannot be renamed: what it is about to hold, whole
PATIENCE = 10.0  # seconds that a swap waits for another in the same folder
ATTEMPTS = 100  # at a place that other writers change meanwhile, where the system has no lock for it
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_OLD = re.compile(r"\.[a-z0-9_]{8}\.old")  # of a swap in two steps


@contextmanager
def new_folder(path: Path, refuse: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` once the block ends well; otherwise `path` stays as it was.

    The two are exchanged in one step where the system can. Several writers at once leave one of their folders, whole. `refuse`
    is asked about a folder that stands there (absent: see `refuse_foreign`), before the block and again before the exchange;
    it raises EngineError to keep it.
    """
    refuse = refuse or refuse_foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):  # another writer is at it in two steps; it is asked again before the exchange
        refuse(settled(path))
    with draft_folder(path) as draft:
        yield draft
        _sync_tree(draft)
        with alone(path.parent):
            _place(draft, path, refuse)
        sync_folder(path.parent)
    sweep(path.parent)
    _drop_old(path)


def refuse_foreign(path: Path, marker: str = "manifest.json") -> None:
    """Raise EngineError for whatever must not be replaced: a file, a link, or a folder with something in it but no `marker`."""
    try:
        mode = path.lstat().st_mode  # one look: another writer may move it away between two
    except (FileNotFoundError, NotADirectoryError):
        return
    names = contents(path) if stat.S_ISDIR(mode) else []
    if stat.S_ISLNK(mode):
        what = f"{path} is a link"
    elif not stat.S_ISDIR(mode):
        what = f"{path} is a file"
    elif not names or marker in names or NEXT in names:
        return
    else:
        what = f"{path} is not an engine, and holds {names[0]}"
    raise EngineError(f"{what}: it is not replaced", remedy="Move it away, or choose another folder with -o")


def contents(folder: Path) -> list[str]:
    """The names in a folder but for drafts, in order; none where another writer has just moved it away."""
    with suppress(FileNotFoundError):
        return sorted(entry for entry in os.listdir(folder) if not entry.endswith(DRAFT))
    return []


def settled(path: Path) -> Path:
    """Where the folder is that belongs at `path`: elsewhere only where a swap was cut short, or is under way.

    A folder that a killed process had moved aside, with nothing put in its place, is moved back.
    """
    if (path / NEXT).is_dir():
        return path / NEXT
    if os.path.lexists(path) or not path.parent.is_dir():
        return path
    with alone(path.parent):  # a swap in two steps ends first
        left = [] if os.path.lexists(path) else _left_aside(path)
        for old in left[:1]:
            try:
                os.rename(old, path)
            except OSError:  # a folder that may only be read
                return old
    return path


@contextmanager
def alone(folder: Path, patience: float | None = None) -> Iterator[None]:
    """Inside the block nobody else swaps folders in `folder`, as far as the system has locks; it waits for `patience` seconds."""
    if folder.name.endswith(DRAFT):  # its maker holds the lock that says so, and nobody else works in there
        yield
        return
    handle = None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
    end = time.monotonic() + (PATIENCE if patience is None else patience)
    try:
        while handle is not None and lock(handle) is False and time.monotonic() < end:
            time.sleep(0.002)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _place(draft: Path, path: Path, refuse: Callable[[Path], None]) -> None:
    """Put `draft` where `path` is. What stood there is afterwards under the draft's name, or gone."""
    for attempt in range(ATTEMPTS):
        try:
            refuse(path)
            if not os.path.lexists(path):
                os.rename(draft, path)
            elif _exchange(draft, path):
                _keep_foreign(draft, path, refuse)
            else:
                _swap_in_two(draft, path, refuse)
            return
        except OSError as error:
            if error.errno in CANNOT_MOVE:
                _pour(draft, path)
                return
            gone_or_come = error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
            if not gone_or_come or not draft.exists() or attempt == ATTEMPTS - 1:
                raise


def _keep_foreign(draft: Path, path: Path, refuse: Callable[[Path], None]) -> None:
    """What was exchanged is now under the draft's name: where it came after the look, and must not be replaced, it goes back."""
    try:
        refuse(draft)
    except EngineError:
        _exchange(draft, path)
        refuse(path)  # which says so by its name
        raise


def _swap_in_two(draft: Path, path: Path, refuse: Callable[[Path], None]) -> None:
    """Two renames. Whoever looks between them, or after a kill between them, finds what stood there by `settled`."""
    old = draft.with_name(draft.name.removesuffix(DRAFT) + ".old")
    os.rename(path, old)
    try:
        refuse(old)  # it may have come after the look
        os.rename(draft, path)
    except BaseException as error:
        with suppress(OSError):
            os.rename(old, path)
        if isinstance(error, EngineError):
            refuse(path)  # which says so by its name
        raise
    shutil.rmtree(old, ignore_errors=True)


def _pour(draft: Path, path: Path) -> None:
    """Replace what is in a folder that cannot be renamed. All of it lies in `NEXT`, whole, until every file is in its place."""
    ready = path / NEXT
    if ready.is_dir():
        _settle_in(path)
    with draft_folder(ready) as copy:
        shutil.copytree(draft, copy, dirs_exist_ok=True)
        _sync_tree(copy)
        os.rename(copy, ready)
    _settle_in(path)


def _settle_in(path: Path) -> None:
    ready = path / NEXT
    names = os.listdir(ready)
    for name in names:
        write_atomically(path / name, read_regular(ready / name))
    for name in set(os.listdir(path)) - {NEXT, *names}:
        remove(path / name)
    gone = path / f".{NEXT}.00000000{DRAFT}"
    os.rename(ready, gone)
    remove(gone)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot. Raises OSError."""
    rename = _renameat2()
    if rename is None:
        return False
    import ctypes

    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


@cache
def _renameat2() -> Any:
    """glibc's function of Linux's system call; None where there is none."""
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return rename


def _left_aside(path: Path) -> list[Path]:
    """What swaps in two steps moved away from `path`, the newest first."""
    found: list[tuple[float, Path]] = []
    for entry in os.scandir(path.parent):
        if entry.name.startswith(f".{path.name}") and _OLD.fullmatch(entry.name[len(path.name) + 1 :]):
            with suppress(OSError):  # its writer has just removed it
                if entry.is_dir(follow_symlinks=False):
                    found.append((entry.stat().st_ctime, Path(entry)))
    return [old for _, old in sorted(found, reverse=True)]


def _drop_old(path: Path) -> None:
    with suppress(OSError), alone(path.parent):
        for old in _left_aside(path) if os.path.lexists(path) else ():
            remove(old)


def _sync_tree(folder: Path) -> None:
    for where, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(where, name), "rb") as file, suppress(OSError):
                os.fsync(file.fileno())
        sync_folder(Path(where))
