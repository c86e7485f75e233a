"""PyCudaDevice: a GPU through PyCUDA, for apps that live in PyCUDA."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from toolkit.errors import DeviceError, MissingExtra

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which PyCUDA passes on without naming it


def _driver() -> Any:
    try:
        import pycuda.driver as driver
    except ImportError as failure:
        if isinstance(failure, ModuleNotFoundError) and (failure.name or "").split(".")[0] == "pycuda":
            raise MissingExtra("pycuda", "pycuda") from None
        what = f"PyCUDA does not import: {failure}"
        raise DeviceError(what, remedy="Install the NVIDIA driver, then PyCUDA again") from failure
    try:
        driver.init()
    except driver.Error as failure:
        raise DeviceError(f"the NVIDIA driver does not start: {failure}", remedy="Run: nvidia-smi") from failure
    return driver


class PyCudaDevice:
    """See `Device`. Takes PyCUDA's current context; with none, or with one of another GPU than `index`, the primary one.

    PyCUDA has no CUDA graphs, so every call queues its kernels one by one. It cannot ask the driver about an address:
    only memory that this object page-locked counts as pinned.
    """

    graphs = False

    def __init__(self, index: int | None = None) -> None:
        self._cuda = cuda = _driver()
        self._objects: dict[int, Any] = {}  # PyCUDA's own objects by the integer that stands for them
        with self._telling("open the GPU"):
            context = cuda.Context.get_current()
            devices = [cuda.Device(i) for i in range(cuda.Device.count())]
            here = devices.index(cuda.Context.get_device()) if context is not None else None
            self.index = here if here is not None and index in (None, here) else index or 0
            if self.index >= len(devices):
                raise DeviceError(f"there is no GPU {self.index}: this machine has {len(devices)}", remedy="Run: nvidia-smi")
            device = devices[self.index]
            self._context = context if self.index == here else device.retain_primary_context()
            self._retained = self.index != here
            self.name = str(device.name())
            major, minor = device.compute_capability()
        self.sm = int(major) * 10 + int(minor)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.MemoryError as failure:
            raise DeviceError(
                f"the GPU is out of memory: cannot {what}",
                remedy="Use fewer contexts or a smaller largest batch, or end what else uses the GPU (nvidia-smi lists it)",
            ) from failure
        except self._cuda.Error as failure:
            raise DeviceError(f"cannot {what}: {failure}", remedy="Run: toolkit doctor") from failure

    def _keep(self, handle: int, thing: Any) -> int:
        self._objects[handle] = thing
        return handle

    def enter(self) -> bool:
        if self._cuda.Context.get_current() == self._context:
            return False
        with self._telling("make the context current"):
            self._context.push()
        return True

    def leave(self) -> None:
        with self._telling("give the context back"):
            self._cuda.Context.pop()

    def allocate(self, size: int) -> int:
        with self._telling(f"allocate {size / 2**20:.1f} MiB on {self.name}"):
            memory = self._cuda.mem_alloc(size)
            return self._keep(int(memory), memory)

    def free(self, address: int) -> None:
        with self._telling("free GPU memory"):
            self._objects.pop(address).free()

    def pin(self, size: int) -> int:
        with self._telling(f"page-lock {size / 2**20:.1f} MiB"):
            array = self._cuda.pagelocked_empty((size,), "uint8", mem_flags=self._cuda.host_alloc_flags.PORTABLE)
        return self._keep(int(array.ctypes.data), array)

    def unpin(self, address: int) -> None:
        with self._telling("free page-locked memory"):
            self._objects.pop(address).base.free()

    def is_pinned(self, address: int) -> bool:
        return hasattr(self._objects.get(address), "ctypes")

    def ordinal(self, address: int) -> int | None:
        try:
            self._cuda.mem_get_address_range(address)
        except self._cuda.Error:  # no memory of this context
            return None
        return self.index

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        with self._telling("copy to the GPU"):
            self._cuda.memcpy_htod_async(device, (ctypes.c_ubyte * size).from_address(host), self._objects[stream])

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        with self._telling("copy from the GPU"):
            self._cuda.memcpy_dtoh_async((ctypes.c_ubyte * size).from_address(host), device, self._objects[stream])

    def stream(self) -> int:
        with self._telling("make a stream"):
            stream = self._cuda.Stream(NON_BLOCKING)
            return self._keep(int(stream.handle), stream)

    def close_stream(self, stream: int) -> None:
        del self._objects[stream]

    def synchronize(self, stream: int) -> None:
        with self._telling("finish the work on the GPU"):
            self._objects[stream].synchronize()

    def event(self) -> int:
        event = self._cuda.Event()
        return self._keep(id(event), event)

    def close_event(self, event: int) -> None:
        del self._objects[event]

    def record(self, event: int, stream: int) -> None:
        with self._telling("record an event"):
            if stream not in self._objects:  # somebody else's: PyCUDA cannot name it, so wait for all that is queued
                self._cuda.Context.synchronize()
            self._objects[event].record(self._objects.get(stream))

    def wait(self, stream: int, event: int) -> None:
        with self._telling("wait for an event"):
            self._objects[stream].wait_for_event(self._objects[event])

    def elapsed(self, start: int, end: int) -> float:
        with self._telling("read the time between events"):
            return float(self._objects[start].time_till(self._objects[end])) / 1e3

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        raise DeviceError("PyCUDA has no CUDA graphs", remedy="Install cuda-bindings: pip install 'resnet-deploy[gpu]'")

    def launch(self, graph: int, stream: int) -> None:
        self.capture(stream, lambda: None)

    def close_graph(self, graph: int) -> None:
        self.capture(0, lambda: None)

    def close(self) -> None:
        if self._retained:
            self._retained = False
            with self._telling("release the primary context"):
                self._context.detach()
