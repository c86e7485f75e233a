"""Manifest: an engine's identity card, written beside the compiled file. It is all that an app needs in order to run it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from toolkit.disk.files import decode_json, read_regular, sha256, sha256_bytes, write_atomically
from toolkit.errors import EngineError
from toolkit.outputs import Outputs
from toolkit.recipe import Preprocess
from toolkit.types import NAME, Frozen, Meaning, Target, TensorSpec

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"  # of the manifest's bytes: made last, and not among its `files`
VERSION = 2
READABLE = (1, 2)  # version 1 has no `files`, `seal` and `baseline`
UNSEALED = "0" * 64
_SEAL = re.compile(rb'"seal": "[0-9a-f]{64}"')
LIMIT = 1 << 26  # bytes of a manifest
MOST = 1 << 24  # images of a batch, or values of one


class Profile(Frozen, frozen=True):
    """One optimization profile: the batches it takes and the one it is fastest at."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max <= MOST:
            raise ValueError(f"a profile is 1 <= min <= opt <= max <= {MOST}, not {self.min}, {self.opt}, {self.max}")


class Baseline(Frozen, frozen=True):
    """What an engine keeps of its reference, so that it can be judged and compared where the reference is not.

    `latency` is the median of single calls at batch 1, in seconds, on `threads` threads of `device`.
    """

    name: str  # the reference in words: an architecture, or an ONNX file
    device: str = ""
    library: str = ""
    latency: float | None = None
    threads: int | None = None
    images: int = 0  # how many answers of it are stored
    data: str = ""  # SHA-256 of the images of `[accept]`
    top1: float | None = None  # its accuracy on them, 0 to 1; None without labels


class Manifest(Frozen, frozen=True):
    """What an engine is, what it was made of and by what.

    `hashes` are SHA-256 in hex of what it was made of: `file` (the compiled file), and, where they apply, `weights`, `onnx` (the
    final graph), `calibration` (the preprocessed images), `ranges`, `timing_cache`. `files` are those of every file beside the
    manifest, and `seal` is that of the manifest's own text with 64 zeros in the seal's place.

    >>> import toolkit
    >>> manifest = toolkit.Manifest.read("engines/built/fashion-resnet18-int8")
    >>> manifest.target, manifest.precision, manifest.inputs[0].shape, manifest.classes[9]
    ('cpu', 'int8+fp16', ('N', 1, 28, 28), 'Ankle boot')
    """

    name: str
    target: str
    file: str  # the compiled file's name in this folder
    precision: str  # fp32 | fp16 | bf16 | int8 | fp8, or two such as int8+fp16
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
    recipe: dict[str, Any] = {}  # paths are relative to the file that it was read from
    notes: tuple[str, ...] = ()  # what the build decided, and why
    baseline: Baseline | None = None
    files: dict[str, str] = {}
    seal: str = UNSEALED
    version: int = VERSION

    def to_target(self) -> Target:
        return Target.parse(self.target)

    @property
    def largest(self) -> int:
        """The largest batch that it was built for; 1 where it names none."""
        return max((profile.max for profile in self.profiles), default=1)

    @property
    def columns(self) -> int:
        """How many an answer has."""
        return int(self.outputs[0].shape[1])

    @property
    def meaning(self) -> Outputs:
        """What the columns of an answer mean, and how they are read."""
        return Outputs(are=self.outputs_are, threshold=self.threshold)

    @property
    def contract(self) -> dict[str, Any]:
        """What callers of an engine rely on."""
        spec, columns = self.inputs[0], self.outputs[0].shape[1:]
        return {
            "input": (spec.dtype, spec.shape[1:]),
            "preprocess": self.preprocess,
            "outputs": (self.meaning, columns),
            "classes": self.classes,
        }

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Raises EngineError where there is none, it is damaged, or another version of the toolkit wrote it."""
        path = Path(folder) / MANIFEST
        try:
            data = read_regular(path, LIMIT)
        except FileNotFoundError:
            raise EngineError(
                f"{folder} is not an engine: it has no {MANIFEST}", remedy="Build one: toolkit build RECIPE"
            ) from None
        except OSError as error:
            raise EngineError(f"{path} cannot be read: {error}", remedy="Build the engine again") from error
        return cls.decode(data, str(path))

    @classmethod
    def decode(cls, data: bytes, where: str) -> Manifest:
        """From the manifest's bytes; `where` they come from is for messages. Raises EngineError."""
        try:
            raw = decode_json(data)
        except ValueError as error:
            raise EngineError(f"{where} cannot be read: {error}", remedy="Build the engine again") from error
        found = raw.get("version") if isinstance(raw, dict) else None
        if found not in READABLE:
            what = f"{where} has format version {found!r}, this toolkit reads {' and '.join(map(str, READABLE))}"
            raise EngineError(what, remedy="Build the engine again")
        try:
            manifest = msgspec.convert(raw, cls)
            manifest._check()
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{where} is damaged: {error}", remedy="Build the engine again") from error
        if found != 1 and not is_sealed(data):
            what = f"{where} is damaged: its text does not match its own seal"
            raise EngineError(what, remedy="Copy the engine again or build it again")
        return manifest

    def _check(self) -> None:
        """Raise ValueError for what no build writes, and what would be wrong only later, in the middle of a call."""
        Target.parse(self.target)
        if not NAME.fullmatch(self.name):  # a handoff makes folders and scripts of it
            raise ValueError(f"a name is letters, digits, dots, dashes and underscores, 200 at most, not {self.name!r:.80}")
        if len(self.inputs) != 1 or not (self.outputs and self.profiles):
            raise ValueError("an engine has one input, outputs and profiles")
        if self.version == 1 and (self.files or self.seal != UNSEALED):
            raise ValueError("format version 1 has neither a seal nor hashes of all files")
        ends = (*self.inputs, *self.outputs)
        if len(self.outputs[0].shape) != 2 or any(isinstance(size, str) for spec in ends for size in spec.shape[1:]):
            raise ValueError("answers are [N, classes], and only the batch is open")
        if any(isinstance(size, int) and not 1 <= size <= MOST for spec in ends for size in spec.shape):
            raise ValueError(f"a size is 1 to {MOST}")
        how, taken = self.preprocess, self.inputs[0].shape[1:]
        made = how.pixel_shape if how.inside else how.input_shape
        if taken != made:
            raise ValueError(f"its pictures become {list(made)}, and it takes {list(taken)}")
        columns = self.columns
        if self.classes is not None and len(self.classes) != self.meaning.classes(columns):
            raise ValueError(f"it names {len(self.classes)} classes, and its answers have {columns} columns")

    def write(self, folder: Path) -> Manifest:
        """Write it into `folder` with the hashes of all other files there, and sealed; gives that manifest back."""
        others = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.name not in (MANIFEST, SIGNATURE))
        hashed = {path.name: sha256(path) for path in others if path.is_file()}
        listed = msgspec.structs.replace(self, files=hashed, seal=UNSEALED)
        text = msgspec.json.format(msgspec.json.encode(listed, order="sorted"), indent=1) + b"\n"
        write_atomically(folder / MANIFEST, sealed(text))
        return msgspec.structs.replace(listed, seal=sha256_bytes(text))

    def compiled(self, source: Path | Mapping[str, bytes]) -> bytes:
        """The compiled file's bytes, from an engine's folder or from its files by name. Raises EngineError as `member` does."""
        return self.member(source, self.file, self.hashes.get("file"))

    def member(self, source: Path | Mapping[str, bytes], name: str, digest: str | None = None) -> bytes:
        """A file's bytes, once their SHA-256 is `digest` (absent: the one in `files`). Raises EngineError, which names it."""
        if not is_inside(name):
            raise EngineError(f"the engine {self.name} names a file outside itself: '{name}'", remedy="Build the engine again")
        try:
            data = source[name] if isinstance(source, Mapping) else (source / name).read_bytes()
        except (KeyError, OSError):
            raise EngineError(f"the engine {self.name} has no file '{name}'", remedy="Copy it again or build it again") from None
        if sha256_bytes(data) != (digest or self.files.get(name)):
            what = f"{name} of {self.name} is not the file that its manifest describes"
            raise EngineError(what, remedy="Copy it again or build it again")
        return data


def is_inside(name: str) -> bool:
    """Whether a file of that name lies in the engine's own folder."""
    return Path(name).name == name and "\0" not in name and name not in ("", "..")


def sealed(text: bytes) -> bytes:
    """JSON text whose `seal` is `UNSEALED`, with the SHA-256 of that text in its place."""
    return text.replace(f'"seal": "{UNSEALED}"'.encode(), f'"seal": "{sha256_bytes(text)}"'.encode(), 1)


def is_sealed(data: bytes) -> bool:
    """Whether it is what `sealed` gave."""
    text, count = _SEAL.subn(f'"seal": "{UNSEALED}"'.encode(), data, count=1)
    return count == 1 and sealed(text) == data
