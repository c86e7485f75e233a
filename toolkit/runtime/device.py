"""Device: the few things that an executor asks of a GPU. `cuda.py`, `pycuda.py` and `host.py` each answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

from toolkit.errors import MissingExtra

LEGACY_STREAM = 1  # CUDA's handle for the default stream of old, cudaStreamLegacy; DLPack and the CUDA array interface use it too


class Device(Protocol):
    """One GPU, seen from one CUDA context. Addresses, streams, events and graphs are plain integers; sizes are bytes.

    Every method but `enter` needs the context to be current on the calling thread, and raises DeviceError, which says
    what failed, when the driver refuses. Copies, records, waits and launches only queue work on a stream.
    """

    name: str
    index: int  # the driver's ordinal
    sm: int  # compute capability: 89 is 8.9
    graphs: bool  # whether `capture` and `launch` are there

    def enter(self) -> bool:
        """Make the context current on this thread. True where it was not, and `leave` is owed."""
        ...

    def leave(self) -> None:
        """Give the thread back the context that was current before `enter`."""
        ...

    def allocate(self, size: int) -> int: ...

    def free(self, address: int) -> None: ...

    def pin(self, size: int) -> int:
        """Page-locked host memory: the only kind that is copied at full speed and without blocking."""
        ...

    def unpin(self, address: int) -> None: ...

    def is_pinned(self, address: int) -> bool: ...

    def ordinal(self, address: int) -> int | None:
        """The device that holds this address; None where it is host memory."""
        ...

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        """Queue a copy from page-locked memory at `host` to `device`."""
        ...

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        """Queue a copy from `device` to page-locked memory at `host`."""
        ...

    def stream(self) -> int: ...

    def close_stream(self, stream: int) -> None: ...

    def synchronize(self, stream: int) -> None:
        """Wait until all that was queued on the stream is done. Other Python threads run meanwhile."""
        ...

    def event(self) -> int: ...

    def close_event(self, event: int) -> None: ...

    def record(self, event: int, stream: int) -> None: ...

    def wait(self, stream: int, event: int) -> None:
        """Queue a wait: what is queued on `stream` after it runs once `event` has happened."""
        ...

    def elapsed(self, start: int, end: int) -> float:
        """Seconds between two recorded events that have happened."""
        ...

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Record what `work` queues on the stream, without running it, as a graph that `launch` repeats at once."""
        ...

    def launch(self, graph: int, stream: int) -> None: ...

    def close_graph(self, graph: int) -> None: ...

    def close(self) -> None:
        """Let go of the context. A second call does nothing."""
        ...


@contextmanager
def current(device: Device) -> Iterator[None]:
    """The device's context is current inside the block, and whatever was current before is so again after it."""
    owed = device.enter()
    try:
        yield
    finally:
        if owed:
            device.leave()


def best(index: int | None = None) -> Device:
    """The GPU of the context that is current on this thread, or else GPU `index` (0) through its primary context.

    Over cuda-bindings where it is installed, else over PyCUDA. Raises MissingExtra or DeviceError.
    """
    if find_spec("cuda") is not None and find_spec("cuda.bindings") is not None:
        from toolkit.runtime.cuda import CudaDevice

        return CudaDevice(index)
    if find_spec("pycuda") is not None:
        from toolkit.runtime.pycuda import PyCudaDevice

        return PyCudaDevice(index)
    raise MissingExtra("cuda-bindings", "gpu")
