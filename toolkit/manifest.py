"""Manifest: an engine's identity card, written beside the compiled file. It is all that an app needs in order to run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from toolkit.errors import EngineError
from toolkit.files import sha256, write_atomically
from toolkit.outputs import Outputs
from toolkit.recipe import Preprocess
from toolkit.types import Frozen, Meaning, Target, TensorSpec

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
    outputs_are: Meaning = "logits"  # what the columns of an answer mean (`outputs.py`)
    threshold: float | None = None  # of a binary or multi-label column, on its own scale
    hashes: dict[str, str] = {}
    versions: dict[str, str] = {}  # toolkit, and the library that compiled it
    device: str = ""  # what it was compiled for, in words
    settings: dict[str, Any] = {}  # the backend's own: threads, spinning, builder flags
    recipe: dict[str, Any] = {}
    notes: tuple[str, ...] = ()  # what the build decided, and why
    version: int = VERSION

    def to_target(self) -> Target:
        return Target.parse(self.target)

    @property
    def meaning(self) -> Outputs:
        """What the columns of an answer mean, and how they are read."""
        return Outputs(are=self.outputs_are, threshold=self.threshold)

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
