"""Forks: what has threads of its own does not live on in a forked process. It is told there, so that it can say so.

ONNX Runtime's and OpenVINO's sessions, CUDA's contexts and a batcher's workers are such: a call in the child never returns.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Protocol


class Forkable(Protocol):
    def forked(self) -> None:
        """Called in the forked process, before anything else runs there."""


_alive: weakref.WeakSet[Any] = weakref.WeakSet()


def watch(thing: Forkable) -> None:
    """From now on `thing` is told of a fork, for as long as it lives."""
    _alive.add(thing)


def abandon(thing: Any) -> None:
    """Never free `thing`: its destructor would wait for threads that are not in this process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _after_fork() -> None:
    for thing in list(_alive):
        thing.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
