"""What a server serves, and what it gives a request at most: bytes, pixels, time and a place in the queue."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from toolkit.errors import EngineError
from toolkit.types import Frozen

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_SOURCE = re.compile(rf"(?:(?P<name>{NAME})(?:@(?P<version>[0-9]{{1,9}}))?=)?(?P<path>.+)")


class Limits(Frozen, frozen=True):
    """Sizes in bytes, times in seconds. What goes beyond is refused at once, in the protocol's own words."""

    body: int = 64 << 20  # of one request, also once it is decompressed
    json: int = 16 << 20  # of the JSON in it: parsing it holds up every other request
    bodies: int = 512 << 20  # of all requests in progress together
    pixels: int = 50_000_000  # of a picture, before it is decoded
    queue: int | None = None  # images that wait for one engine; absent: as many as it answers in `patience`
    queue_bytes: int = 256 << 20  # and never more than these
    patience: float = 1.0
    seconds: float = 30.0  # from a request's head to its answer
    head_seconds: float = 10.0  # for a request's head, from a connection's first moment or the answer before
    head: int = 64 << 10
    idle: float = 20.0  # between requests of one connection
    connections: int = 1024
    drain: float = 30.0  # what is under way at SIGTERM is given so long

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be above 0")


class Source(Frozen, frozen=True):
    """One engine to serve: under which name (absent: its own) and version (absent: the next), and where it lies."""

    path: Path
    name: str | None = None
    version: str | None = None


class Settings(Frozen, frozen=True):
    """How a server is run. `max_batch` and `max_wait` (seconds) override what was measured; `bound` is the p99 to stay under."""

    sources: tuple[Source, ...]
    limits: Limits = Limits()
    threads: int | None = None  # of each engine on the CPU; absent: as it was built, at most its share of the cores
    max_batch: int | None = None
    max_wait: float | None = None
    bound: float = 0.05
    results: Path | None = None  # a bench of these engines, from which batching is taken instead of a sweep at the start
    workers: int = 1
    admin: bool = False  # load and unload by requests from this machine
    watch: float | None = None  # seconds between looks at the engines' folders
    access_log: bool = False


def sources(words: Iterable[str]) -> tuple[Source, ...]:
    """`[NAME[@VERSION]=]PATH` of each. A path that has a `=` in it needs a name before it. Raises EngineError."""
    found = []
    for word in words:
        match = _SOURCE.fullmatch(word)
        if match is None:
            raise EngineError(f"'{word}' names no engine", remedy="Give its path, or NAME=PATH, or NAME@VERSION=PATH")
        version = match["version"]
        found.append(Source(path=Path(match["path"]), name=match["name"], version=version and str(int(version))))
    if not found:
        raise EngineError("there is no engine to serve", remedy="Give at least one: toolkit serve engines/built/x")
    return tuple(found)
