"""Ahead: pictures are read by threads while the caller works on those before them. Pillow lets go of the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from toolkit.cpu import cores

T = TypeVar("T")
SMALL = 1 << 15  # pixels up to which a picture in memory is read sooner than handed to a thread


def read_ahead(items: Iterable[Any], read: Callable[[Any], T], most: int | None = None) -> Generator[T, None, None]:
    """`read(item)` of each item, in their order, on as many threads as there are cores; at most `most` are under way or done.

    Items are drawn by the caller's thread, one or `most` ahead of their turn. What `read` raises is raised in the item's turn. A
    picture whose file is still to be decoded, and an open file, are not for two threads at once: given again while they are being
    read, they wait for that. A single picture, and small ones in memory, are read by the caller.
    """
    workers = cores()
    most = most or 2 * workers
    waiting: deque[tuple[int, Future[T]]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for item, is_last in _with_last(items):
            key = id(item) if hasattr(item, "read") or getattr(item, "tile", None) else 0
            while len(waiting) >= most or (key and any(key == other for other, _ in waiting)):
                yield waiting.popleft()[1].result()
            if not waiting and (is_last or _is_small(item)):
                yield read(item)
                continue
            pool = pool or ThreadPoolExecutor(workers, "pictures")
            waiting.append((key, pool.submit(read, item)))
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _with_last(items: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Each item, and whether it is the last."""
    rest = iter(items)
    for item in rest:
        for following in rest:
            yield item, False
            item = following
        yield item, True


def _is_small(item: Any) -> bool:
    """Whether it is in memory, decoded, and quickly read."""
    if isinstance(item, (str, Path, bytes, bytearray, memoryview)) or getattr(item, "tile", None):
        return False
    size = getattr(item, "size", None)  # of a Pillow image width and height, of an array a number, of a tensor a method
    if isinstance(size, tuple):
        return bool(size[0] * size[1] <= SMALL)
    return isinstance(size, int) and size <= 3 * SMALL
