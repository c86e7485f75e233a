"""Decoders: threads that decode pictures, and how many pictures may wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from toolkit.cpu import cores
from toolkit.serve.refused import busy

T = TypeVar("T")
FIRST = 0.01  # seconds that a picture is taken to need until one was decoded
SHARE = 0.1  # of the last picture in the moving mean


class Decoders:
    """As many threads as there are cores. A picture is refused at once where it would wait for a thread longer than `patience`
    seconds, by the mean time of the last ones: an engine that is faster than its decoders would otherwise have pictures wait
    without end."""

    def __init__(self, patience: float, threads: int | None = None) -> None:
        self._patience, self._count = patience, threads or cores()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="decoder")
        self._lock = threading.Lock()
        self._under_way, self._each = 0, FIRST

    async def run(self, work: Callable[[], T]) -> T:
        """`work()` on a thread. Raises Refused where too many wait, and what `work` raises."""
        with self._lock:
            wait = max(self._under_way - self._count + 1, 0) * self._each / self._count  # none where a thread is free
            if wait > self._patience:
                raise busy(f"{self._under_way} pictures wait to be decoded, for about {wait:.1f} s")
            self._under_way += 1
        try:
            found = self._pool.submit(self._timed, work)
        except RuntimeError:  # closed meanwhile
            self._left()
            raise busy("the server is closing") from None
        found.add_done_callback(self._left)  # also where the request was given up before its turn
        return await asyncio.wrap_future(found)

    def _timed(self, work: Callable[[], T]) -> T:
        begin = time.perf_counter()
        try:
            return work()
        finally:
            took = time.perf_counter() - begin
            with self._lock:
                self._each += SHARE * (took - self._each)

    def _left(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._under_way -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
