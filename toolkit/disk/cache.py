"""Cache: what can be had again, at a cost. It is never needed: without a home, on a read-only or a full disk, work goes on.

Entries lie in `cache_folder()/KIND/NAME`: their SHA-256, then their bytes, so that a damaged one counts as none. Together they
stay under LIMIT: those that were not used for longest go first. Downloaded checkpoints lie beside them and are left alone.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from toolkit.disk.drafts import sweep
from toolkit.disk.files import cache_folder, read_regular, write_atomically

LIMIT = 2 << 30  # bytes of all entries
_DIGEST = 32


class Entry(NamedTuple):
    """One file of the cache; `used` in seconds since the epoch."""

    path: Path
    size: int
    used: float


def find(kind: str, name: str) -> bytes | None:
    """What `keep` was given under this name; None where it is not there, damaged, or cannot be read."""
    try:
        path = cache_folder() / kind / name
        data = read_regular(path)
    except OSError:
        return None
    digest, payload = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    with suppress(OSError):
        os.utime(path)  # used now: others go first
    return payload


def keep(kind: str, name: str, payload: bytes) -> bool:
    """Keep `payload`; False where that cannot be, which only means that the work is done again next time."""
    try:
        path = place(kind, name)
        write_atomically(path, hashlib.sha256(payload).digest() + payload)
    except OSError:
        return False
    trim(path)
    return True


def place(kind: str, name: str) -> Path:
    """Where a library that reads and writes its own file may do so, in a folder that is there. Raises OSError."""
    folder = cache_folder() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def forget(kind: str, name: str) -> None:
    """Remove an entry, if it is there."""
    with suppress(OSError):
        (cache_folder() / kind / name).unlink(missing_ok=True)


def entries() -> list[Entry]:
    """All that lies in the folders of the cache, the latest used first."""
    return sorted(_entries(), key=lambda entry: entry.used, reverse=True)


def trim(newest: Path | None = None) -> None:
    """Hold the cache under LIMIT; `newest` stays whatever its size. An entry dated later than now counts as never used."""
    total = 0
    with suppress(OSError):
        for folder in {entry.path.parent for entry in _entries()}:
            sweep(folder)
        now = time.time() + 60
        for entry in sorted(_entries(), key=lambda e: (e.path == newest, e.used if e.used < now else 0.0), reverse=True):
            total += entry.size
            if total > LIMIT and entry.path != newest:
                with suppress(OSError):
                    entry.path.unlink()


def clean() -> tuple[int, int]:
    """Remove everything, downloads too: (files, bytes). Raises OSError where a file cannot be removed."""
    count = size = 0
    root = cache_folder()
    for where, folders, names in os.walk(root, topdown=False):
        links = [name for name in folders if Path(where, name).is_symlink()]
        for path in [Path(where, name) for name in (*names, *links)]:
            with suppress(FileNotFoundError):  # another process cleans or trims as well
                freed = path.lstat().st_size
                path.unlink()
                size, count = size + freed, count + 1
        with suppress(OSError):  # somebody has begun to fill it again
            os.rmdir(where)
    return count, size


def _entries() -> Iterator[Entry]:
    for folder in _inside(Path()):
        for file in _inside(Path(folder.name)) if folder.is_dir(follow_symlinks=False) else ():
            with suppress(OSError):  # it has gone
                if file.is_file(follow_symlinks=False):
                    state = file.stat()
                    yield Entry(Path(file), state.st_size, state.st_mtime)


def _inside(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder of the cache; nothing where it cannot be read, or has gone."""
    with suppress(OSError):
        return list(os.scandir(cache_folder() / folder))
    return []
