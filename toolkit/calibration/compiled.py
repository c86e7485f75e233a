"""`compiled`: numba's njit. What it compiled is kept for the next process where that can be, and compiled again where not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from toolkit.errors import MissingExtra

try:
    from numba import njit
except ImportError:  # where an engine is only run, its ranges are read all the same
    njit = None  # type: ignore[assignment]

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """The function in machine code; it lets go of the interpreter's lock. Without numba, calling it raises MissingExtra."""
    made: Any
    if njit is None:
        return cast(_F, _absent)
    try:
        made = njit(cache=True, nogil=True)(function)
    except (RuntimeError, OSError):  # numba finds no folder that it may write to
        made = njit(nogil=True)(function)
    else:
        made._cache = _Forgiving(made._cache)
    return cast(_F, made)


def _absent(*given: Any) -> Any:
    raise MissingExtra("numba", "export")


class _Forgiving:
    """numba's cache of one function. A full disk, or a damaged file, would end the call that only wanted to be fast."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *given: Any) -> Any:
        with suppress(Exception):  # unpickling raises many kinds
            return self._cache.load_overload(*given)
        return None

    def save_overload(self, *given: Any) -> None:
        with suppress(Exception):  # it reads its index before it writes
            self._cache.save_overload(*given)
