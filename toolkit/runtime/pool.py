"""Pool: a few costly things that threads take in turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from toolkit.errors import ClosedError

T = TypeVar("T")


class Pool(Generic[T]):
    """At most `limit` things, made by `make` when first wanted and ended by `end`; threads wait for a free one.

    `close` refuses whoever waits (ClosedError), waits for whoever still works, then ends every thing, once; a second
    close returns when the first one has done so.
    """

    def __init__(self, make: Callable[[], T], end: Callable[[T], None], limit: int, name: str) -> None:
        if limit < 1:
            raise ValueError(f"a pool needs a limit of at least 1, not {limit}")
        self._make, self._end, self._limit, self._name = make, end, limit, name
        self._changed = threading.Condition()
        self._free: list[T] = []
        self._busy = 0  # taken, or being made
        self._closing = False
        self._closed = False

    def acquire(self) -> T:
        """A free thing, or a new one while there are fewer than `limit`, else the next that is released."""
        with self._changed:
            while not self._closing:
                if self._free:
                    self._busy += 1
                    return self._free.pop()  # the last one used is the warm one
                if self._busy < self._limit:
                    self._busy += 1
                    break
                self._changed.wait()
            else:
                raise ClosedError(f"{self._name} is closed", remedy="Load the engine again")
        return self._new()

    def try_acquire(self) -> T | None:
        """The same, but None at once where all are taken or the pool closes."""
        with self._changed:
            if self._closing or (not self._free and self._busy >= self._limit):
                return None
            self._busy += 1
            if self._free:
                return self._free.pop()
        return self._new()

    def _new(self) -> T:
        try:
            return self._make()
        except BaseException:
            self._left()
            raise

    def _left(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def release(self, thing: T) -> None:
        with self._changed:
            self._free.append(thing)
            self._busy -= 1
            self._changed.notify_all()

    def discard(self, thing: T) -> None:
        """End a thing that failed; another may be made in its place."""
        try:
            self._end(thing)
        finally:
            self._left()

    def close(self) -> bool:
        """True for the caller whose close ended the things."""
        with self._changed:
            if self._closing:
                self._changed.wait_for(lambda: self._closed)
                return False
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._busy == 0)
        try:
            for thing in self._free:
                self._end(thing)
            self._free.clear()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
        return True
