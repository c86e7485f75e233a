"""Files: hashes, bounded reads, and writes that are whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import re
import stat
import zipfile
import zlib
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from toolkit.disk.drafts import draft_file, sweep
from toolkit.errors import ToolkitError

_DIGITS = re.compile(rb"\d{20}")
# What a damaged archive raises; NotImplementedError is of a compression that zipfile lacks, RuntimeError of an encrypted member.
DAMAGED_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, RuntimeError,
)  # fmt: skip
CANNOT_MOVE = (errno.EXDEV, errno.EBUSY)  # a mount, or what lies in a lower layer of an overlay


def cache_folder() -> Path:
    """What can be had again, at a cost, is kept here: `$XDG_CACHE_HOME/resnet-deploy`, by default under ~/.cache.

    Raises OSError where neither that variable holds an absolute path nor this user has a home.
    """
    told = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(told) if os.path.isabs(told) else Path.home() / ".cache") / "resnet-deploy"
    except RuntimeError:
        raise OSError(errno.ENOENT, "this user has no home folder to keep a cache in; set XDG_CACHE_HOME") from None


def sha256(path: Path) -> str:
    """SHA-256 of a regular file, in hex. Raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(*parts: bytes | memoryview) -> str:
    """SHA-256 of the parts laid end to end, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def open_regular(path: Path, folder: int | None = None) -> BinaryIO:
    """A regular file, open for reading; `folder` is the descriptor of a folder that `path` is relative to.

    Raises OSError for whatever else bears the name: a FIFO or a device would be waited for, or never end.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(handle, "rb")


def near(path: Path, otherwise: str) -> str:
    """What a mistyped path may have meant, as a question: a file or folder of nearly that name; `otherwise` where none is."""
    folder = path.parent
    try:
        if not folder.exists():
            folders = [one.name for one in os.scandir(folder.parent) if one.is_dir()]
            folder = folder.parent / get_close_matches(folder.name, folders, 1)[0]
        names = [one.name for one in os.scandir(folder) if Path(one.name).suffix == path.suffix and folder / one.name != path]
        return f"Did you mean '{folder / get_close_matches(path.name, names, 1)[0]}'?"
    except (OSError, IndexError):
        return otherwise


def read_regular(path: Path, limit: int | None = None, folder: int | None = None) -> bytes:
    """All bytes of a regular file. Raises OSError: no such file, another kind of thing, or more than `limit` bytes."""
    with open_regular(path, folder) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if limit is not None and size > limit else file.read(size + 1) or b""  # None: nothing as yet
        while size < len(data) and (limit is None or len(data) <= limit) and (more := file.read(1 << 20)):
            data += more  # it grows, or is of /proc, whose files say that they are empty
    if limit is not None and max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"larger than the {limit} bytes that such a file may have", str(path))
    return data


def decode_json(data: bytes) -> Any:
    """JSON -> plain values. Raises ValueError, also for what is nested so deeply, or with a number so long that it is none."""
    try:
        found = msgspec.json.decode(data)
    except RecursionError:
        raise ValueError("JSON is malformed: it is nested too deeply") from None
    if _DIGITS.search(data):
        refuse_long(found)
    return found


def refuse_long(value: Any) -> None:
    """Raise ValueError for a whole number of more than 64 bits among plain values: it becomes no float, and no array holds it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, int) and not -(1 << 63) <= one < 1 << 64:
            raise ValueError(f"a whole number of {one.bit_length()} bits is beyond any that is written here")
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, flush to disk, rename: a reader sees the old file or the new one, never half of either.

    A file that cannot be replaced (one that is mounted into a container) is written over. Raises OSError, which names the file.
    """
    draft: Path | None = None
    try:
        with draft_file(path) as (draft, file):
            file.write(data)
            _flush(file)
            os.chmod(draft, 0o644)
            if os.name == "nt":
                file.close()  # Windows renames no open file
            _put(draft, path, data)
    except BaseException as error:
        if draft is not None:
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk's does not say where, others name the draft
            del error.filename2
        raise
    sync_folder(path.parent)
    sweep(path.parent)


def require_place(path: Path) -> None:
    """Raise ToolkitError now where `write_atomically` could not put a file at `path` after long work."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with draft_file(path) as (draft, _):
            draft.unlink()
    except OSError as error:
        remedy = "Name another file, or make its folder"
        raise ToolkitError(f"cannot write {path}: {error.strerror or error}", remedy=remedy) from error


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, unless it is there. Raises ToolkitError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolkitError(f"{path} cannot be a folder: {error.strerror or error}", remedy="Name another one with -o") from error


def _put(draft: Path, path: Path, data: bytes) -> None:
    try:
        os.replace(draft, path)
    except OSError as error:
        if error.errno not in CANNOT_MOVE:
            raise
        with path.open("wb") as file:
            file.write(data)
            _flush(file)
        draft.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames last through a loss of power, where the system lets a folder be flushed."""
    if os.name == "nt":
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
