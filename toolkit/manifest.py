"""Manifest: an engine's identity card, written beside the compiled file. It is all that an app needs in order to run it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from toolkit.errors import EngineError
from toolkit.recipe import Preprocess
from toolkit.types import Frozen, Target, TensorSpec

MANIFEST = "manifest.json"
VERSION = 1


class Profile(Frozen, frozen=True):
    """One optimisation profile: the batches it takes and the one it is fastest at."""

    min: int
    opt: int
    max: int


class Manifest(Frozen, frozen=True):
    """What an engine is, what it was made of and by what.

    `hashes` are SHA-256 in hex: `file` (the compiled file), and, where they apply, `weights`, `onnx` (the final graph),
    `calibration` (the preprocessed images), `ranges`, `timing_cache`.
    """

    name: str
    target: str
    file: str  # the compiled file's name in this folder
    precision: str  # fp32 | fp16 | int8 | int8+fp16
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    preprocess: Preprocess
    classes: tuple[str, ...] | None = None
    hashes: dict[str, str] = {}
    versions: dict[str, str] = {}  # toolkit, and the library that compiled it
    device: str = ""  # what it was compiled for, in words
    settings: dict[str, Any] = {}  # the backend's own: threads, spinning, builder flags
    recipe: dict[str, Any] = {}
    notes: tuple[str, ...] = ()  # what the build decided, and why
    version: int = VERSION

    def to_target(self) -> Target:
        return Target.parse(self.target)

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Raises EngineError where there is none, it is damaged, or another version of the toolkit wrote it."""
        path = Path(folder) / MANIFEST
        try:
            raw = msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            raise EngineError(
                f"{folder} is not an engine: it has no {MANIFEST}", remedy="Build one: toolkit build RECIPE"
            ) from None
        except (OSError, ValueError) as error:
            raise EngineError(f"{path} cannot be read: {error}", remedy="Build the engine again") from error
        found = raw.get("version") if isinstance(raw, dict) else None
        if found != VERSION:
            raise EngineError(
                f"{path} has format version {found!r}, this toolkit reads {VERSION}", remedy="Build the engine again"
            )
        try:
            return msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise EngineError(f"{path} is damaged: {error}", remedy="Build the engine again") from error

    def write(self, folder: Path) -> None:
        data = msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1)
        write_atomically(folder / MANIFEST, data + b"\n")

    def check_file(self, folder: Path) -> Path:
        """The compiled file, once its hash agrees with `hashes`. Raises EngineError."""
        path = folder / self.file
        if path.parent != folder or not path.is_file():
            raise EngineError(f"{folder} has no compiled file '{self.file}'", remedy="Build the engine again")
        if sha256(path) != self.hashes.get("file"):
            raise EngineError(f"{path} is not the file that its manifest describes", remedy="Copy it again or build it again")
        return path


def cache_folder() -> Path:
    """What can be had again, at a cost, is kept here: `$XDG_CACHE_HOME/resnet-deploy`, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet-deploy"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(*parts: bytes | memoryview) -> str:
    """SHA-256 of the parts laid end to end, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, flush to disk, rename: a reader sees the old file or the new one, never half of either."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk's error does not say where
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path` once the block ends well; otherwise `path` stays as it was."""
    import shutil

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        old = temporary.with_name(temporary.name + ".old")
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
