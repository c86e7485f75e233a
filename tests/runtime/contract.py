"""What every device must do. `check` runs on the host device in a test, and here, as a script, on CudaDevice."""

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from toolkit.errors import DeviceError
from toolkit.runtime.arrays import host_view
from toolkit.runtime.device import current


def check(device):
    values = np.arange(16, dtype=np.float32)
    with current(device):
        assert device.enter() is False
        stream, block = device.stream(), device.allocate(64)
        source, target = device.pin(64), device.pin(64)
        start, end = device.event(), device.event()
        went_in, came_out = host_view(source, (16,), np.float32), host_view(target, (16,), np.float32)
        assert device.is_pinned(source)
        assert not device.is_pinned(values.ctypes.data)
        assert (device.ordinal(block), device.ordinal(source), device.ordinal(values.ctypes.data)) == (device.index, None, None)

        def trip():
            device.copy_in(block, source, 64, stream)
            device.copy_out(target, block, 64, stream)

        went_in[:] = values
        device.record(start, stream)
        device.wait(stream, start)
        trip()
        device.record(end, stream)
        device.synchronize(stream)
        np.testing.assert_array_equal(came_out, values)
        assert 0 <= device.elapsed(start, end) < 10

        if device.graphs:
            check_graph(device, stream, trip, went_in, came_out)
        else:
            fails(lambda: device.capture(stream, trip), "no CUDA graphs")
        fails(lambda: device.allocate(1 << 40), "out of memory")
        for event in (start, end):
            device.close_event(event)
        device.free(block)
        device.unpin(source)
        device.unpin(target)
        device.close_stream(stream)
    device.close()
    device.close()


def check_graph(device, stream, trip, went_in, came_out):
    graph = device.capture(stream, trip)
    for factor in (2, 3):
        went_in[:] = factor
        device.launch(graph, stream)
        device.synchronize(stream)
        assert (came_out == factor).all()
    device.close_graph(graph)
    fails(lambda: device.capture(stream, lambda: device.copy_in(8, 8, 64, stream)))
    trip()  # the stream is out of capture again
    device.synchronize(stream)


def fails(call, words="."):
    with pytest.raises(DeviceError, match=words):
        call()


def main():
    from cuda.bindings import driver

    from toolkit.runtime.cuda import CudaDevice
    from toolkit.runtime.device import best

    fake = ctypes.CDLL("libcuda.so.1")
    device = best()
    assert (type(device), device.name, device.index, device.sm) == (CudaDevice, "Fake GPU 0", 0, 89)
    assert fake.fake_retained() == 1
    check(device)
    assert (fake.fake_retained(), fake.fake_blocks()) == (0, 0)
    assert int(driver.cuCtxGetCurrent()[1]) == 0  # the app's thread is as it was

    # An app with a context of its own: it is used, and not released by us.
    driver.cuCtxPushCurrent(0x2001)
    device = CudaDevice()
    assert (device.index, device.enter(), fake.fake_retained()) == (1, False, 0)
    check(device)
    assert int(driver.cuCtxGetCurrent()[1]) == 0x2001
    # Another GPU than the app's: through its primary context, and the app's comes back after every call.
    device = CudaDevice(0)
    assert (device.index, fake.fake_retained()) == (0, 1)
    check(device)
    assert int(driver.cuCtxGetCurrent()[1]) == 0x2001
    fails(lambda: CudaDevice(7), "CUDA_ERROR_INVALID_DEVICE")
    print("the contract holds")


def main_pycuda():
    sys.setdlopenflags(os.RTLD_LAZY)  # the fake driver has only the calls that are made
    import pycuda.driver as driver

    from toolkit.runtime.pycuda import PyCudaDevice

    device = PyCudaDevice()
    assert (device.name, device.index, device.sm) == ("Fake GPU 0", 0, 89)
    check(device)
    app = driver.Device(1).make_context()
    device = PyCudaDevice()
    assert (device.index, device.enter()) == (1, False)
    check(device)
    assert driver.Context.get_current() == app

    device = PyCudaDevice()
    with ThreadPoolExecutor(1) as thread:  # one that has no context of its own
        thread.submit(check, device).result()
    assert driver.Context.get_current() == app
    app.pop()
    fake = ctypes.CDLL("libcuda.so.1")
    assert (fake.fake_retained(), fake.fake_blocks()) == (0, 0)
    print("the contract holds")


if __name__ == "__main__":
    sys.exit(main())
