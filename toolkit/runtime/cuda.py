"""CudaDevice: a GPU through NVIDIA's cuda-bindings, by the driver API, so that it fits into any context an app has made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.errors import DeviceError, MissingExtra


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError:
        raise MissingExtra("cuda-bindings", "gpu") from None
    try:
        (error,) = driver.cuInit(0)
    except RuntimeError as failure:  # cuda-bindings raises one where it finds no libcuda to load
        raise DeviceError(
            "this machine has no NVIDIA driver",
            remedy="If it has an NVIDIA GPU, install the driver; if not, build the engine with --target cpu",
        ) from failure
    if error != driver.CUresult.CUDA_SUCCESS:
        raise DeviceError(f"the NVIDIA driver does not start: {error.name}", remedy="Run: nvidia-smi")
    return driver


class CudaDevice:
    """See `Device`. Takes the context that is current on the calling thread; with none, or with one of another GPU than
    `index`, it retains the primary context, which PyTorch, CuPy and the CUDA runtime share.
    """

    graphs = True

    def __init__(self, index: int | None = None) -> None:
        self._cuda = cuda = _driver()
        self._success = cuda.CUresult.CUDA_SUCCESS
        self._retained = False
        (context,) = self._do("read the current context", cuda.cuCtxGetCurrent())
        here = int(self._do("read the current device", cuda.cuCtxGetDevice())[0]) if int(context) else None
        self.index = here if here is not None and index in (None, here) else index or 0
        (handle,) = self._do(f"open GPU {self.index}", cuda.cuDeviceGet(self.index))
        self._handle = handle
        if self.index != here:
            (context,) = self._do("retain the primary context", cuda.cuDevicePrimaryCtxRetain(handle))
            self._retained = True
        self._context = context
        self._context_address = int(context)
        (name,) = self._do("read the GPU's name", cuda.cuDeviceGetName(256, handle))
        self.name = name.split(b"\0")[0].decode()
        kinds = cuda.CUdevice_attribute
        major = self._attribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        self.sm = major * 10 + self._attribute(kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)

    def _attribute(self, kind: Any) -> int:
        return int(self._do("read a device attribute", self._cuda.cuDeviceGetAttribute(kind, self._handle))[0])

    def _do(self, what: str, result: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values of a driver call, which come after its status. Raises DeviceError."""
        if result[0] != self._success:
            self._fail(what, result[0])
        return result[1:]

    def _fail(self, what: str, error: Any) -> None:
        name = getattr(error, "name", str(error))
        if name == "CUDA_ERROR_OUT_OF_MEMORY":
            raise DeviceError(
                f"the GPU is out of memory: cannot {what}",
                remedy="Use fewer contexts or a smaller largest batch, or end what else uses the GPU (nvidia-smi lists it)",
            )
        raise DeviceError(f"cannot {what}: {name}", remedy="Run: toolkit doctor")

    def enter(self) -> bool:
        (current,) = self._do("read the current context", self._cuda.cuCtxGetCurrent())
        if int(current) == self._context_address:
            return False
        self._do("make the context current", self._cuda.cuCtxPushCurrent(self._context))
        return True

    def leave(self) -> None:
        self._do("give the context back", self._cuda.cuCtxPopCurrent())

    def allocate(self, size: int) -> int:
        return int(self._do(f"allocate {size / 2**20:.1f} MiB on {self.name}", self._cuda.cuMemAlloc(size))[0])

    def free(self, address: int) -> None:
        self._do("free GPU memory", self._cuda.cuMemFree(address))

    def pin(self, size: int) -> int:
        portable = self._cuda.CU_MEMHOSTALLOC_PORTABLE  # page-locked for every context, not for this one alone
        return int(self._do(f"page-lock {size / 2**20:.1f} MiB", self._cuda.cuMemHostAlloc(size, portable))[0])

    def unpin(self, address: int) -> None:
        self._do("free page-locked memory", self._cuda.cuMemFreeHost(address))

    def _pointer(self, kind: Any, address: int) -> int | None:
        error, value = self._cuda.cuPointerGetAttribute(kind, address)
        if error == self._cuda.CUresult.CUDA_ERROR_INVALID_VALUE:  # how the driver says that it never saw this address
            return None
        return int(self._do("look an address up", (error, value))[0])

    def is_pinned(self, address: int) -> bool:
        kind = self._pointer(self._cuda.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
        return kind == int(self._cuda.CUmemorytype.CU_MEMORYTYPE_HOST)

    def ordinal(self, address: int) -> int | None:
        attributes = self._cuda.CUpointer_attribute
        kind = self._pointer(attributes.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
        if kind is None or kind == int(self._cuda.CUmemorytype.CU_MEMORYTYPE_HOST):
            return None
        return self._pointer(attributes.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address)

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        self._do("copy to the GPU", self._cuda.cuMemcpyHtoDAsync(device, host, size, stream))

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        self._do("copy from the GPU", self._cuda.cuMemcpyDtoHAsync(host, device, size, stream))

    def stream(self) -> int:
        # Non-blocking: without it, whatever an app runs on the default stream would wait for us and we for it.
        flag = int(self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
        return int(self._do("make a stream", self._cuda.cuStreamCreate(flag))[0])

    def close_stream(self, stream: int) -> None:
        self._do("close a stream", self._cuda.cuStreamDestroy(stream))

    def synchronize(self, stream: int) -> None:
        self._do("finish the work on the GPU", self._cuda.cuStreamSynchronize(stream))

    def event(self) -> int:
        return int(self._do("make an event", self._cuda.cuEventCreate(0))[0])

    def close_event(self, event: int) -> None:
        self._do("close an event", self._cuda.cuEventDestroy(event))

    def record(self, event: int, stream: int) -> None:
        self._do("record an event", self._cuda.cuEventRecord(event, stream))

    def wait(self, stream: int, event: int) -> None:
        self._do("wait for an event", self._cuda.cuStreamWaitEvent(stream, event, 0))

    def elapsed(self, start: int, end: int) -> float:
        milliseconds = self._do("read the time between events", self._cuda.cuEventElapsedTime(start, end))[0]
        return float(milliseconds) / 1e3

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        cuda = self._cuda
        # Thread-local: another thread may allocate while this one captures.
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._do("begin a graph", cuda.cuStreamBeginCapture(stream, mode))
        try:
            work()
        except BaseException:
            cuda.cuStreamEndCapture(stream)  # its status can only repeat the failure that is on its way up
            raise
        (graph,) = self._do("end a graph", cuda.cuStreamEndCapture(stream))
        try:
            return int(self._do("make a graph ready", cuda.cuGraphInstantiate(graph, 0))[0])
        finally:
            self._do("free a graph's description", cuda.cuGraphDestroy(graph))

    def launch(self, graph: int, stream: int) -> None:
        self._do("launch a graph", self._cuda.cuGraphLaunch(graph, stream))

    def close_graph(self, graph: int) -> None:
        self._do("free a graph", self._cuda.cuGraphExecDestroy(graph))

    def close(self) -> None:
        if self._retained:
            self._retained = False
            self._do("release the primary context", self._cuda.cuDevicePrimaryCtxRelease(self._handle))
