"""What one run of the suite makes once, whichever of its workers asks first."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """`place`, filled by `make` unless it is there; a worker that asks meanwhile waits. What fails leaves nothing behind."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            draft = place.with_name(f"{place.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            make(draft)
            os.replace(draft, place)
    return place


@contextmanager
def untraced() -> Iterator[None]:
    """Coverage does not look: it would be asked at each of torch's calls, which takes an export half as long again."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
