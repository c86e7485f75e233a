"""The few small types that every room speaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import RecipeError

Float = NDArray[np.float32]
Array = NDArray[Any]
DType = Literal["float32", "float16", "uint8", "int8", "int32", "int64"]
TargetKind = Literal["cpu", "openvino", "cuda", "tensorrt", "rtx"]
ON_CPU = ("cpu", "openvino")
Progress = Callable[[int, int], None]  # (done, total); called as work goes on


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every struct: immutable, built by keyword, strict about unknown keys."""


class TensorSpec(Frozen, frozen=True):
    """One input or output of an engine; `N` in `shape` stands for the batch."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


class Target(msgspec.Struct, frozen=True):
    """What an engine is compiled for: `cpu` (ONNX Runtime), `openvino`, `cuda`, `tensorrt`, or `rtx:sm89` (one SM)."""

    kind: TargetKind
    sm: int | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """`rtx:sm89` -> Target('rtx', 89). Raises RecipeError, which says what is allowed."""
        match = re.fullmatch(r"(cpu|openvino|cuda|tensorrt)|(rtx):sm(\d+)", text)
        if match is None:
            remedy = "Use cpu, cuda, tensorrt or rtx:smNN, such as rtx:sm89; or openvino"
            raise RecipeError(f"target '{text}' is not known", remedy=remedy)
        kind: Any = match[1] or match[2]
        return cls(kind, int(match[3]) if match[3] else None)

    @classmethod
    def parse_many(cls, text: str) -> tuple[Target, ...]:
        """`rtx:sm86,sm89` -> one Target an SM; a kind carries over the comma."""
        targets: list[Target] = []
        for part in text.split(","):
            part = part.strip()
            targets.append(cls.parse(f"rtx:{part}" if part.startswith("sm") and targets and targets[-1].kind == "rtx" else part))
        return tuple(targets)

    def __str__(self) -> str:
        return f"{self.kind}:sm{self.sm}" if self.sm is not None else self.kind

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
