"""Played: what the played TensorRT's objects have in common, those that run engines (`double.py`) and those that build them
(`builder.py`)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from toolkit.types import Array, TensorSpec

DTYPES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Network(NamedTuple):
    """What a played engine is: `function` maps input arrays by name to output arrays by name, for any batch."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[tuple[int, int, int], ...]
    function: Callable[[dict[str, Array]], dict[str, Array]]
    workspace: int = 4096
    layers: tuple[dict[str, Any], ...] = ()
    weights: Mapping[str, bytes] = {}  # that a Refitter may exchange
    stripped: bool = False  # it cannot run before its weights are put in
    identical: bool = False  # and takes those alone that it was built with


class Recorded:
    """Refuses every public name that the recording lacks, as attribute and as assignment."""

    _names: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        kind = type(self).__name__
        if name in self._names:
            raise NotImplementedError(f"{kind}.{name} is real, but the double does not play it")
        raise AttributeError(f"{kind} has no '{name}' in this version of TensorRT")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self._names:
            raise AttributeError(f"{type(self).__name__} has no '{name}' in this version of TensorRT")
        object.__setattr__(self, name, value)


class ILogger(Recorded):
    Severity: Any = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Any, msg: str) -> None: ...
