"""Drafts: what is not finished lies beside its place, `.NAME.xxxxxxxx.toolkit-draft`, until it is whole.

Whoever writes a draft holds a lock on it (flock), which the system lifts when that process ends, however it ends. So a draft
without a lock is litter, and the next good write in that folder removes it; where the system has no flock (Windows) it stays.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DRAFT = ".toolkit-draft"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sweep(folder: Path, mine: Callable[[Path], bool] = bool) -> None:
    """Remove the drafts in `folder` whose writer has ended without finishing them; of those, the ones that are `mine`."""
    if fcntl is None:
        return
    with suppress(OSError):
        for draft in [Path(entry) for entry in os.scandir(folder) if entry.name.endswith(DRAFT)]:
            with suppress(OSError):
                if mine(draft) and not _is_held(draft):
                    remove(draft)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for what a library must find in files; one that a killed process left is removed by the next."""
    place, prefix = Path(tempfile.gettempdir()), "resnet-deploy-"
    sweep(place, lambda draft: draft.name.startswith(f".{prefix}") and draft.stat().st_uid == os.getuid())
    with draft_folder(place / prefix, mode=0o700) as folder:  # others use the same machine
        try:
            yield folder
        except OSError as error:
            if error.filename is None and error.errno in FULL:
                error.filename = str(place)  # a full disk's error does not say where
            raise


@contextmanager
def draft_file(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=DRAFT)
        if _claim(handle, Path(name)):
            break
        os.close(handle)
    with os.fdopen(handle, "wb") as file:
        yield Path(name), file


@contextmanager
def draft_folder(path: Path, mode: int = 0o755) -> Iterator[Path]:
    """A new folder beside `path`, removed at the end if it is still there under its name."""
    draft, handle = _new_folder(path)
    try:
        os.chmod(draft, mode)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _new_folder(path: Path) -> tuple[Path, int | None]:
    while True:
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=DRAFT))
        if fcntl is None:
            return draft, None
        with suppress(FileNotFoundError):  # a sweep was faster than the lock
            handle = os.open(draft, os.O_RDONLY)
            if _claim(handle, draft):
                return draft, handle
            os.close(handle)


def _claim(handle: int, draft: Path) -> bool:
    """Lock a draft that was just made; False where a sweep was faster."""
    return lock(handle) is not False and _is(handle, draft)


def _is_held(draft: Path) -> bool:
    """Whether its writer lives, or might."""
    try:
        handle = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return not (lock(handle) and _is(handle, draft))
    finally:
        os.close(handle)


def lock(handle: int) -> bool | None:
    """Whether the lock is had; None where there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is(handle: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    return False


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
