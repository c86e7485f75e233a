"""Pickles name classes; here they become inert records, so that what lies beside the tensors can be read and nothing runs."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import _weights_only_unpickler as reader

from toolkit.errors import WeightsError

# What no checkpoint needs: a file that asks for one of these is an attack, or damaged.
_FORBIDDEN = re.compile(
    r"(os|posix|nt|sys|subprocess|shutil|socket|runpy|importlib|pty|ctypes|signal|webbrowser|commands|code)(\.|$)"
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|input|breakpoint|__import__)$"
)
_MOST = 256  # classes named by one file
_LONGEST = 2000  # characters of a complaint


class Record:
    """An object of a class that is not imported: its arguments and its attributes, and no behavior."""

    path = ""  # the class's full name; each has a subclass of its own

    def __new__(cls, *_: Any, **__: Any) -> Record:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update({str(name): value for name, value in part.items()})


def load_inert(path: Path) -> tuple[Any, tuple[str, ...]]:
    """What torch.save wrote -> its content, and the full names of the classes that became Records.

    torch's `weights_only` reader builds tensors and plain containers; each class that it refuses is put in as a Record, and
    the file read again. Raises WeightsError for a class that is an attack; and what `torch.load` raises.
    """
    records: dict[str, type[Any]] = {}
    while True:
        try:
            with _brief(), torch.serialization.safe_globals([(record, name) for name, record in records.items()]):
                return torch.load(path, map_location="cpu", weights_only=True), tuple(records)
        except pickle.UnpicklingError as error:
            if (filled := _filled(str(error), records)) is not None:
                records |= filled
                continue
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            name = found[1] if found else ""
            name = name if "." in name or not name else f"builtins.{name}"
            if _FORBIDDEN.match(name):
                what = f"{path} asks to run {name} when it is read: no checkpoint needs that, and nothing was run"
                raise WeightsError(what, remedy="Do not load it; take the weights from their author again") from None
            if not name or name in records or len(records) == _MOST:
                raise
            records[name] = type(name.rpartition(".")[2], (Record,), {"path": name})


@contextmanager
def _brief() -> Iterator[None]:
    """torch.load searches its reader's complaint in a time that grows with the square of its length, and a file may name a class
    of a million letters."""
    whole: Callable[[Any], Any] = reader.Unpickler.load

    def load(self: reader.Unpickler) -> Any:
        try:
            return whole(self)
        except pickle.UnpicklingError as error:
            raise pickle.UnpicklingError(str(error)[:_LONGEST]) from None

    reader.Unpickler.load = load  # type: ignore[method-assign]
    try:
        yield
    finally:
        reader.Unpickler.load = whole  # type: ignore[method-assign]


def _filled(error: str, records: Mapping[str, type[Any]]) -> dict[str, type[Any]] | None:
    """A class whose objects are given items is a dict with attributes, such as easydict's, or a list: read as a plain one."""
    kinds = (("SETITEM", OrderedDict), ("append to lists", list), ("extend lists", list))
    kind = next((kind for sign, kind in kinds if f"Can only {sign}" in error), None)
    name = next((name for name, record in records.items() if f"{record.__module__}.{record.__qualname__}'>" in error), None)
    return None if kind is None or name is None or not issubclass(records[name], Record) else {name: kind}


def is_module(value: Any) -> bool:
    """Whether a Record was a torch.nn.Module."""
    return isinstance(value, Record) and isinstance(value.__dict__.get("_modules"), dict)


def modules_of(record: Record, prefix: str = "", depth: int = 0) -> dict[str, Record]:
    """Every module of a pickled module by its name, itself as ''."""
    result = {prefix.removesuffix("."): record}
    for name, child in record.__dict__["_modules"].items():
        if is_module(child) and depth < 32:  # a file may hold a module that contains itself
            result |= modules_of(child, f"{prefix}{name}.", depth + 1)
    return result


def state_of(record: Record) -> dict[str, Tensor]:
    """The state dict of a pickled module: parameters and persistent buffers by name."""
    result: dict[str, Tensor] = {}
    for name, module in modules_of(record).items():
        held = module.__dict__
        passing = held.get("_non_persistent_buffers_set") or ()
        tensors = {**held.get("_parameters", {}), **{k: v for k, v in held.get("_buffers", {}).items() if k not in passing}}
        result |= {f"{name}.{key}".lstrip("."): value for key, value in tensors.items() if isinstance(value, Tensor)}
    return result
