"""The few small types that every room speaks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, RecipeError

Float = NDArray[np.float32]
Array = NDArray[Any]
DType = Literal["float32", "float16", "uint8", "int8", "int32", "int64"]
TargetKind = Literal["cpu", "openvino", "cuda", "tensorrt", "rtx"]
Meaning = Literal[
    "logits", "probabilities", "log-probabilities", "binary-logit", "binary-probability", "multilabel-logits",
    "multilabel-probabilities",
]  # fmt: skip
ON_CPU = ("cpu", "openvino")
MOST_NOISE = 4 << 30  # bytes of a batch that is made up
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # of a recipe and its engine: it becomes a folder, and stands in scripts
PORTABLE_FROM = 80  # SM: Ampere, the first that TensorRT-RTX computes INT8 convolutions on
Contents = Path | Mapping[str, bytes]  # where an engine's files are: a folder, or their bytes by name
Progress = Callable[[int, int], None]  # (done, total); called as work goes on
Stage = Callable[[str], Progress]  # told what begins; gives back where its progress goes


# Control codes but tab and newline, and halves of surrogate pairs: Python's way to hold a file name that is no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """The text, with a replacement character for each one that a terminal would obey or an encoding refuse."""
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """The text as one line of a comment: a line break in a stranger's name would begin a line of its own."""
    return printable(" ".join(text.split()))


def quiet(stage: str) -> Progress:
    """A Stage that says nothing."""
    return lambda done, total: None


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every struct: immutable, built by keyword, strict about unknown keys."""


class Finding(Frozen, frozen=True):
    """What lint found at one node of a graph: something that costs speed or accuracy, or that the backend refuses."""

    rule: str
    node: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.node}: {self.what}. {self.fix}"


class TensorSpec(Frozen, frozen=True):
    """One input or output of an engine; `N` in `shape` stands for the batch."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


def noise(spec: TensorSpec, batch: int, seed: int = 0) -> Array:
    """Seeded values in the shape and dtype of an input: unit white noise, or any pixels where it takes those.

    Raises InputError for a batch of more than 4 GiB: an engine's manifest may name any size.
    """
    random = np.random.default_rng(seed)
    shape = (batch, *(size if isinstance(size, int) else 1 for size in spec.shape[1:]))
    if (size := math.prod(shape) * np.dtype(spec.dtype).itemsize) > MOST_NOISE:
        raise InputError(f"a batch of {batch} images takes {size / 1e9:.3g} GB", remedy="Name smaller batches: --batch 1,8")
    if spec.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape).astype(spec.dtype)


class Target(msgspec.Struct, frozen=True):
    """What an engine is compiled for: `cpu` (ONNX Runtime), `openvino`, `cuda`, `tensorrt`, or `rtx` for one or several SMs.

    `rtx` is one engine for every SM from 80 on that the library builds for, `rtx:sm89+` from 89 on, `rtx:sm89+sm120` one engine
    for just these two, `rtx:sm89` for one. `ort-rtx`, with the same words behind it, is such an engine inside an ONNX file.
    """

    kind: TargetKind
    sm: int | None = None  # of rtx: the SM, or the least of several
    also: tuple[int, ...] = ()  # further SMs of the same engine
    onward: bool = False  # and every later SM that the library builds for
    hosted: bool = False  # `ort-rtx`: ONNX Runtime runs it, by NVIDIA's plugin

    @classmethod
    def parse(cls, text: str) -> Target:
        """`rtx:sm89` -> Target('rtx', 89). Raises RecipeError, which says what is allowed."""
        match = re.fullmatch(r"(cpu|openvino|cuda|tensorrt)|(?:ort-)?(rtx)(?::(sm\d+(?:\+sm\d+)*)(\+)?)?", text)
        if match is None or (match[4] and "+" in match[3]):
            remedy = "Use cpu, cuda, tensorrt, rtx (one engine for sm80 and later), rtx:sm89 or rtx:sm89+sm120, ort-rtx; openvino"
            raise RecipeError(f"target '{text}' is not known", remedy=remedy)
        if match[1]:
            kind: Any = match[1]
            return cls(kind)
        hosted = text.startswith("ort-")
        if not match[3]:
            return cls("rtx", PORTABLE_FROM, onward=True, hosted=hosted)
        first, *others = sorted({int(sm[2:]) for sm in match[3].split("+")})
        return cls("rtx", first, tuple(others), bool(match[4]), hosted)

    @classmethod
    def parse_many(cls, text: str) -> tuple[Target, ...]:
        """`rtx:sm86,sm89` -> one Target, and one engine, an SM; a kind carries over the comma."""
        targets: list[Target] = []
        for part in text.split(","):
            part = part.strip()
            before = targets[-1] if targets and part.startswith("sm") else None
            targets.append(cls.parse(f"{before.family}:{part}" if before is not None and before.kind == "rtx" else part))
        return tuple(targets)

    def __str__(self) -> str:
        if self.sm is None or (self.onward and self.sm == PORTABLE_FROM):
            return self.family
        return f"{self.family}:{'+'.join(f'sm{sm}' for sm in (self.sm, *self.also))}{'+' if self.onward else ''}"

    @property
    def family(self) -> str:
        """The target without its SMs."""
        return f"ort-{self.kind}" if self.hosted else self.kind

    @property
    def is_nvidia(self) -> bool:
        """Whether a TensorRT library compiles it, and so TensorRT's Q/DQ scheme applies."""
        return self.kind in ("tensorrt", "rtx")


class Executor(Protocol):
    """A live compiled graph, as a backend's `open` returns it. Shapes and dtypes are those of the manifest's specs.

    `run` takes one array with 1 <= N <= `max_batch` (None: any N) and returns the logits [N, classes] as float32.
    A Runner has checked the array before. `run` may be called by many threads at once.
    """

    max_batch: int | None

    def run(self, batch: Array) -> Float: ...

    def close(self) -> None: ...


class Classifier(Protocol):
    """Whatever answers a batch with logits: a Runner, the PyTorch reference, a test's stand-in."""

    def __call__(self, batch: Array) -> Float: ...


class Compiled(Frozen, frozen=True):
    """What a backend's `compile` left in the engine's folder, and how it did it: the manifest's share of the facts."""

    file: str
    device: str
    versions: dict[str, str]
    settings: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    notes: tuple[str, ...] = ()
