"""Layout: which files an engine consists of, and how they are read, all of one generation, from a folder or a packed file."""

from __future__ import annotations

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from toolkit.disk.files import DAMAGED_ARCHIVE, near, read_regular, sha256_bytes, write_atomically
from toolkit.disk.folders import settled
from toolkit.errors import EngineError
from toolkit.manifest import LIMIT, MANIFEST, SIGNATURE, UNSEALED, Manifest, is_inside, is_sealed
from toolkit.onnxfile import is_whole
from toolkit.recipe.refusals import MODELS

MODEL = "model.onnx"  # a compiled file that is the typed graph itself
GRAPH = "graph.onnx"  # the typed graph, beside a compiled file of another kind
RANGES = "ranges.json"  # what INT8 was scaled by
LAYERS = "layers.json"  # operators, what lint found, and, where the backend tells, its layers
ANSWERS = "answers.npz"  # the reference's answers on the images of `[accept]`
VERDICT = "verdict.json"  # the verdict of the build, and its provenance
SUFFIX = ".engine"
FRAME = b"resnet-deploy "  # a packed engine's comment begins so
MOST = 1 << 32  # bytes of all files together: a plan holds its weights, and a graph of 2 GiB or more is refused before
TRIES = 5  # a folder that is replaced while it is read is read again
_AGAIN = "Copy it again or build it again"


class _MissingError(EngineError):
    """A file that may not be there: an engine need not be signed."""


def read(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and every file that it lists, by name; each hash is checked. Raises EngineError, which names the file."""
    try:
        return _read_packed(path) if path.is_file() else _read_folder(path)
    except OSError as error:  # a name that no file can have
        raise EngineError(f"{path} is not an engine: {error.strerror}", remedy="Give the folder of an engine") from error


def read_manifest(path: Path) -> Manifest:
    """The manifest alone, of a folder or a packed file: no other file is read, and none is checked. Raises EngineError."""
    if not path.is_file():
        return Manifest.read(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_member(path, archive.getinfo(MANIFEST))
            return Manifest.decode(_unpacked(archive, path, MANIFEST, LIMIT), f"{path}{os.sep}{MANIFEST}")
    except (KeyError, *DAMAGED_ARCHIVE) as error:
        raise EngineError(f"{path} is not a packed engine, or is damaged: {error}", remedy=_AGAIN) from error


def pack(manifest: Manifest, contents: dict[str, bytes], target: Path) -> None:
    """One plain zip, stored and not deflated, with fixed dates: the same engine always gives the same bytes.

    Its comment is the hash of all that is no member's content, with zeros in the hash's own place.
    """
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in (MANIFEST, *sorted(manifest.files), *({SIGNATURE} & contents.keys())):
            archive.writestr(zipfile.ZipInfo(name), contents[name])
        archive.comment = FRAME + UNSEALED.encode()
    with zipfile.ZipFile(buffer) as archive:
        digest = _frame(archive)
    write_atomically(target, buffer.getvalue()[: -len(digest)] + digest)


def _read_folder(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    for attempt in range(TRIES):
        before = _standing(folder)
        if before is None:
            what = f"{folder} is not an engine: there is no such file or folder"
            raise EngineError(what, remedy=near(folder, "Build one: toolkit build RECIPE"))
        handle = None
        try:
            handle = _open_folder(before.path)
            return _members(partial(_read_regular, before.path, handle), str(before.path))
        except EngineError:
            if attempt == TRIES - 1 or _standing(folder) == before:
                raise
        finally:
            if handle is not None:
                os.close(handle)
    raise AssertionError("the last attempt returns or raises")


class _Standing(NamedTuple):
    """Which folder stands for an engine, and when a file in it was last put in place, in ns."""

    path: Path
    device: int
    inode: int
    changed: int


def _standing(folder: Path) -> _Standing | None:
    """None where there is none. A folder that cannot be renamed is filled again by way of another one inside it (`settled`)."""
    for _ in range(TRIES):
        path = settled(folder)
        with suppress(FileNotFoundError, NotADirectoryError):
            state = path.stat()
            return _Standing(path, state.st_dev, state.st_ino, state.st_mtime_ns)
        if path == folder:
            break
    return None


def _members(read_file: Callable[[str, int], bytes], where: str) -> tuple[Manifest, dict[str, bytes]]:
    """`read_file` gives the file of a name that has so many bytes at most."""
    data = read_file(MANIFEST, LIMIT)
    manifest = Manifest.decode(data, f"{where}{os.sep}{MANIFEST}")
    contents, left = {MANIFEST: data}, MOST
    for name, digest in (manifest.files or {manifest.file: manifest.hashes.get("file", "")}).items():
        if not is_inside(name):
            raise EngineError(f"{where} names a file outside itself: '{name}'", remedy="Build the engine again")
        contents[name] = read_file(name, left)
        left -= len(contents[name])
        if sha256_bytes(contents[name]) != digest:
            raise EngineError(f"{name} in {where} is not the file that its manifest describes", remedy=_AGAIN)
    with suppress(_MissingError):
        contents[SIGNATURE] = read_file(SIGNATURE, LIMIT)
    if SIGNATURE in contents and not is_sealed(contents[SIGNATURE]):
        raise EngineError(f"{SIGNATURE} in {where} is damaged: its text does not match its own seal", remedy=_AGAIN)
    if manifest.file not in contents:
        raise EngineError(f"{where} has no compiled file '{manifest.file}'", remedy=_AGAIN)
    if not manifest.files:  # version 1 hashed nothing but the compiled file; what lies beside it is taken as it is
        for name in (GRAPH, RANGES, LAYERS):
            try:
                contents[name] = read_file(name, MOST)
            except EngineError:
                continue
    for name, data in contents.items():
        if name.endswith(".onnx") and not is_whole(data):
            what = f"{name} in {where} keeps weights in another file, which no seal covers"
            raise EngineError(what, remedy="Build the engine again")
    return manifest, contents


def _open_folder(folder: Path) -> int | None:
    """A handle that stays with this very folder when another takes its name; None where the system has no such thing."""
    if os.open not in os.supports_dir_fd:
        return None
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise EngineError(f"{folder} cannot be read: {error.strerror}", remedy="Give the folder of an engine") from None


def _read_regular(folder: Path, handle: int | None, name: str, limit: int) -> bytes:
    """A regular file's bytes: a pipe or a device of that name would block, or never end."""
    try:
        return read_regular(Path(name) if handle is not None else folder / name, limit, handle)
    except FileNotFoundError:
        if name == MANIFEST:
            what = f"{folder} is not an engine: it has no {MANIFEST}"
            raise EngineError(what, remedy="Build one: toolkit build RECIPE") from None
        raise _MissingError(f"{folder} has no file '{name}', which its manifest lists", remedy=_AGAIN) from None
    except OSError as error:
        raise EngineError(f"{folder / name} cannot be read: {error.strerror}", remedy=_AGAIN) from None


def _read_packed(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Only what `pack` writes: flat names, each once, stored; and no file that the manifest does not list."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if MANIFEST not in names:  # answers.npz, which is a zip file as well, may be the end of one that was cut short
                raise zipfile.BadZipFile(f"it has no {MANIFEST}")
            for entry in entries:
                _refuse_member(path, entry)
            if sum(entry.file_size for entry in entries) > _size(archive):
                raise EngineError(f"{path} holds files that lie over each other", remedy=_AGAIN)
            if archive.comment and archive.comment != FRAME + _frame(archive):  # there is none where another program packed it
                raise zipfile.BadZipFile("its headers are not those that were packed")
            twice = next((name for name, count in Counter(names).items() if count > 1), None)
            if twice is not None:
                raise EngineError(f"{path} holds '{twice}' twice", remedy=_AGAIN)

            manifest, contents = _members(partial(_unpacked, archive, path), str(path))
    except DAMAGED_ARCHIVE as error:
        if (kind := {**MODELS, ".toml": "a recipe"}.get(path.suffix.lower())) is not None and path.is_file():
            raise EngineError(f"{path} is {kind}, not an engine", remedy=f"Build one: toolkit build {path}") from error
        raise EngineError(f"{path} is not a packed engine, or is damaged: {error}", remedy=_AGAIN) from error
    extra = sorted(set(names) - set(contents))
    if extra:
        raise EngineError(f"{path} holds a file that its manifest does not list: '{extra[0]}'", remedy=_AGAIN)
    return manifest, contents


def _size(archive: zipfile.ZipFile) -> int:
    """Of the file that was opened: another may bear its name by now."""
    assert archive.fp is not None
    return archive.fp.seek(0, os.SEEK_END)


def _frame(archive: zipfile.ZipFile) -> bytes:
    """The hash, in hex, of headers, directory and end; the members' contents have hashes of their own."""
    assert archive.fp is not None
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends, parts, at = [*(entry.header_offset for entry in entries[1:]), archive.start_dir], list[bytes](), 0
    for entry, end in zip(entries, ends, strict=True):
        archive.fp.seek(at)
        parts.append(archive.fp.read(max(0, end - entry.compress_size - at)))
        at = max(at, end)
    archive.fp.seek(at)
    parts.append(archive.fp.read()[: -len(UNSEALED)])
    return sha256_bytes(*parts, UNSEALED.encode()).encode()


def _unpacked(archive: zipfile.ZipFile, path: Path, name: str, limit: int) -> bytes:
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise _MissingError(f"{path} has no file '{name}'", remedy=_AGAIN) from None
    if member.file_size > limit:
        raise EngineError(f"{path}: '{name}' is larger than the {limit} bytes that it may have", remedy=_AGAIN)
    return archive.read(member)


def _refuse_member(path: Path, entry: zipfile.ZipInfo) -> None:
    kind = entry.external_attr >> 16
    what = None
    if entry.filename != Path(entry.filename).name or "\\" in entry.filename or entry.filename in ("", ".", ".."):
        what = f"names a file outside itself: '{entry.filename}'"
    elif stat.S_IFMT(kind) not in (0, stat.S_IFREG):
        what = f"holds '{entry.filename}', which is not a regular file"
    elif entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        what = f"holds '{entry.filename}' compressed or encrypted; a packed engine is stored plain"
    if what is not None:
        raise EngineError(f"{path} {what}", remedy="Pack the engine again: toolkit pack ENGINE -o x.engine")
