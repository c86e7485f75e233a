"""HostDevice: a GPU played by host memory, so that code that embeds an engine is tested where there is no GPU.

It is slower to forgive than a GPU: work on a stream waits until somebody synchronizes, and every mistake that a GPU
answers with wrong numbers or a crash is a HazardError that names it.
"""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import DeviceError
from toolkit.runtime.device import LEGACY_STREAM

Bytes = NDArray[np.uint8]
BASE = 0x7F00_0000_0000  # device addresses: far from any that this process could hold
GAP = 1 << 20  # unowned space after every allocation, so that running over its end is seen


class HazardError(DeviceError):
    """A use of memory, streams or graphs that a GPU would answer with wrong numbers or a crash."""


class Op:
    """Something queued on a stream: `issue` happens when it is queued, `run` when the stream gets to it."""

    __slots__ = ("event", "issue", "run")

    def __init__(self, run: Callable[[], None], issue: Callable[[], None] | None = None, event: int | None = None) -> None:
        self.run, self.issue, self.event = run, issue, event


class HostDevice:
    """See `Device`. `memory` is how many bytes it has; `sm` what it claims to be.

    `checked=False` runs everything at once and checks nothing: it measures what a caller costs, not whether it is right.
    """

    graphs = True
    name = "host memory"

    def __init__(self, *, memory: int = 1 << 30, sm: int = 89, index: int = 0, checked: bool = True) -> None:
        self.index, self.sm, self.checked, self._memory = index, sm, checked, memory
        self._lock = threading.RLock()  # guards the tables; a stream's own lock guards its queue while it runs
        self._ids = itertools.count(100)
        self._bases: list[int] = []  # sorted starts of the device blocks
        self._blocks: dict[int, Bytes] = {}
        self._pinned: dict[int, Bytes] = {}
        self._next = BASE
        self._streams: dict[int, deque[Op]] = {LEGACY_STREAM: deque()}
        self._turns: dict[int, threading.RLock] = {LEGACY_STREAM: threading.RLock()}
        self._events: dict[int, int | None] = {}  # event -> the stream that it was last recorded on
        self._times: dict[int, float] = {}
        self._graphs: dict[int, list[Op]] = {}
        self._capturing: dict[int, list[Op]] = {}
        self._thread = threading.local()
        self.closed = False
        self.launches = 0

    # -- the context

    def enter(self) -> bool:
        if getattr(self._thread, "depth", 0):
            return False
        self._thread.depth = 1
        return True

    def leave(self) -> None:
        if not getattr(self._thread, "depth", 0):
            raise HazardError("a context was given back that was not taken")
        self._thread.depth = 0

    def _need_context(self) -> None:
        if self.checked and not getattr(self._thread, "depth", 0):
            raise HazardError("no CUDA context is current on this thread", remedy="Call enter() first")
        if self.closed:
            raise HazardError("the device was used after close")

    # -- memory

    def allocate(self, size: int) -> int:
        self._need_context()
        with self._lock:
            used = sum(block.nbytes for block in self._blocks.values())
            if used + size > self._memory:
                what = f"the GPU is out of memory: cannot allocate {size / 2**20:.1f} MiB"
                raise DeviceError(what, remedy="Use fewer contexts or a smaller largest batch")
            address, self._next = self._next, self._next + (size + GAP + 255) // 256 * 256
            self._blocks[address] = np.full(size, 0xFF, np.uint8)  # reads as NaN until written
            self._bases.append(address)  # addresses only grow, so the list stays sorted
            return address

    def free(self, address: int) -> None:
        self._need_context()
        with self._lock:
            if address not in self._blocks:
                raise HazardError(f"{address:#x} is freed, but is not allocated")
            del self._blocks[address]
            self._bases.remove(address)

    def pin(self, size: int) -> int:
        self._need_context()
        block = np.full(size, 0xFF, np.uint8)
        with self._lock:
            self._pinned[block.ctypes.data] = block
        return int(block.ctypes.data)

    def unpin(self, address: int) -> None:
        self._need_context()
        with self._lock:
            if self._pinned.pop(address, None) is None:
                raise HazardError(f"{address:#x} is freed, but is not page-locked")

    def is_pinned(self, address: int) -> bool:
        if address in self._pinned:
            return True
        return any(base <= address < base + block.nbytes for base, block in list(self._pinned.items()))

    def ordinal(self, address: int) -> int | None:
        try:
            self.memory(address, 0)
        except HazardError:
            return None
        return self.index

    def memory(self, address: int, size: int) -> Bytes:
        """The bytes behind a device address. Raises HazardError where any of them is not allocated."""
        whole = self._blocks.get(address)
        if whole is not None and size <= whole.nbytes:
            return whole[:size]
        with self._lock:
            at = bisect_right(self._bases, address) - 1
            block = self._blocks.get(self._bases[at]) if at >= 0 else None
            offset = address - self._bases[at] if block is not None else 0
        if block is None or offset + size > block.nbytes:
            raise HazardError(f"{size} bytes at {address:#x} are not the device's (freed, too long, or a host address)")
        return block[offset : offset + size]

    def _host(self, address: int, size: int) -> Bytes:
        block = self._pinned.get(address)
        if block is not None and size <= block.nbytes:
            return block[:size]
        for base, other in list(self._pinned.items()):
            if base <= address and address + size <= base + other.nbytes:
                return other[address - base : address - base + size]
        raise HazardError(f"{size} bytes at {address:#x} are not page-locked (freed, too long, or pageable)")

    # -- streams

    def capturing(self, stream: int) -> bool:
        return stream in self._capturing

    def queue(self, stream: int, work: Op) -> None:
        """Put work on a stream, or into the graph that it captures."""
        if self.checked:
            self._need_context()
        elif not self._capturing:
            work.run()
            return
        if stream not in self._streams:
            raise HazardError(f"stream {stream:#x} is closed or was never made")
        if stream in self._capturing:
            self._capturing[stream].append(work)
            return
        if work.issue is not None:
            work.issue()
        self._streams[stream].append(work)

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        source = self._host(host, size)
        seen = 0

        def issue() -> None:
            nonlocal seen
            seen = zlib.crc32(source.data)

        def run() -> None:
            if self.checked and zlib.crc32(source.data) != seen:
                raise HazardError("a host buffer was written before its copy to the device had run")
            self.memory(device, size)[:] = source

        self.queue(stream, Op(run, issue))

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        target = self._host(host, size)

        def issue() -> None:
            target[:] = 0xFF  # whoever reads before the copy has run reads NaN

        def run() -> None:
            target[:] = self.memory(device, size)

        self.queue(stream, Op(run, issue))

    def stream(self) -> int:
        self._need_context()
        stream = next(self._ids)
        self._streams[stream], self._turns[stream] = deque(), threading.RLock()
        return stream

    def close_stream(self, stream: int) -> None:
        self._need_context()
        if self._streams.pop(stream, None):
            raise HazardError("a stream was closed with work still on it")

    def synchronize(self, stream: int) -> None:
        self._need_context()
        if stream not in self._streams:
            raise HazardError(f"stream {stream:#x} is closed or was never made")
        if self._streams[stream]:
            self._drain(stream)

    def _drain(self, stream: int, until: int | None = None) -> None:
        """Run what is queued; with `until`, only as far as the last record of that event."""
        with self._turns[stream]:
            queue = self._streams.get(stream, deque())
            count = len(queue)
            if until is not None:
                count = max((i + 1 for i, op in enumerate(queue) if op.event == until), default=0)
            for _ in range(count):
                queue.popleft().run()

    # -- events

    def event(self) -> int:
        self._need_context()
        event = next(self._ids)
        self._events[event] = None
        return event

    def close_event(self, event: int) -> None:
        if self._events.pop(event, -1) == -1:
            raise HazardError("an event was closed twice")

    def record(self, event: int, stream: int) -> None:
        self._events[event] = stream

        def run() -> None:
            self._times[event] = time.perf_counter()

        self.queue(stream, Op(run, event=event))

    def wait(self, stream: int, event: int) -> None:
        source = self._events[event]
        if source is not None:
            self.queue(stream, Op(lambda: self._drain(source, until=event)))

    def elapsed(self, start: int, end: int) -> float:
        if start not in self._times or end not in self._times:
            raise HazardError("the time of an event was read before it had happened")
        return self._times[end] - self._times[start]

    # -- graphs

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        self._need_context()
        ops: list[Op] = []
        self._capturing[stream] = ops
        try:
            work()
        finally:
            del self._capturing[stream]
        graph = next(self._ids)
        self._graphs[graph] = ops
        return graph

    def launch(self, graph: int, stream: int) -> None:
        self.launches += 1
        for op in self._graphs[graph]:
            self.queue(stream, op)

    def close_graph(self, graph: int) -> None:
        if self._graphs.pop(graph, None) is None:
            raise HazardError("a graph was freed twice")

    def held(self) -> dict[str, Any]:
        """What is still allocated, by kind; empty once everything was given back."""
        counts = {
            "device blocks": len(self._blocks),
            "page-locked blocks": len(self._pinned),
            "streams": len(self._streams) - 1,
            "events": len(self._events),
            "graphs": len(self._graphs),
        }
        return {kind: count for kind, count in counts.items() if count}

    def close(self) -> None:
        self.closed = True
