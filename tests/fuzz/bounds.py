"""Bounds: a reader ends in an answer or a ToolkitError, within seconds and a gibibyte."""

from __future__ import annotations

import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from tests.fuzz.readers import Reader

SECONDS, MEMORY = 5.0, 1 << 30


class Hang(BaseException):
    """Not an Exception: no reader may swallow it."""


@contextmanager
def bounds() -> Iterator[None]:
    """Raises Hang after 5 s of this process's own time or a minute on the clock, MemoryError past 1 GiB more than now."""

    def late(number: int, frame: object) -> None:
        raise Hang

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = {kind: signal.signal(kind, late) for kind in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 60.0)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, handler in before.items():
            signal.signal(kind, handler)


def fault(reader: Reader, data: bytes, folder: Path) -> str | None:
    """What is wrong with how `data` is read; None where it is answered, or refused by a ToolkitError of one message."""
    path = folder / f"mutant{reader.suffix}"
    path.write_bytes(data)
    try:
        with bounds(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
    except ToolkitError as error:
        return None if len(str(error)) < 5000 else f"an error of {len(str(error))} characters"
    except Hang:
        return "it does not end"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None
