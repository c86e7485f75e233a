"""The host device must catch what a GPU would not: each hazard here is wrong code that has to be refused."""

import numpy as np
import pytest

from toolkit.errors import DeviceError
from toolkit.runtime.arrays import host_view
from toolkit.runtime.device import LEGACY_STREAM
from toolkit.testing.host import HazardError, HostDevice, Op


@pytest.fixture
def device():
    host = HostDevice(memory=1 << 16)
    host.enter()
    return host


def pinned(device, values):
    address = device.pin(values.nbytes)
    view = host_view(address, values.shape, values.dtype)
    view[:] = values
    return address, view


VALUES = np.arange(8, dtype=np.float32)


def test_there_and_back_again(device):
    stream = device.stream()
    source, _ = pinned(device, VALUES)
    target, view = pinned(device, np.zeros(8, np.float32))
    block = device.allocate(32)
    device.copy_in(block, source, 32, stream)
    device.copy_out(target, block, 32, stream)
    assert np.isnan(view).all()  # not before a synchronize
    device.synchronize(stream)
    np.testing.assert_array_equal(view, VALUES)
    for end, thing in ((device.free, block), (device.unpin, source), (device.unpin, target), (device.close_stream, stream)):
        assert device.held()
        end(thing)
    assert device.held() == {}


def test_a_source_overwritten_too_early(device):
    stream, block = device.stream(), device.allocate(32)
    source, view = pinned(device, VALUES)
    device.copy_in(block, source, 32, stream)
    view[0] = 9
    with pytest.raises(HazardError, match="written before its copy"):
        device.synchronize(stream)


def test_a_block_freed_too_early(device):
    stream, block = device.stream(), device.allocate(32)
    source, _ = pinned(device, VALUES)
    device.copy_in(block, source, 32, stream)
    device.free(block)
    with pytest.raises(HazardError, match="not the device's"):
        device.synchronize(stream)


def host_as_device(device, stream, block, source):
    device.copy_in(source, source, 32, stream)


def pageable(device, stream, block, source):
    device.copy_in(block, VALUES.ctypes.data, 32, stream)


def too_long(device, stream, block, source):
    device.copy_in(block, pinned(device, np.zeros(9, np.float32))[0], 36, stream)


def double_free(device, stream, block, source):
    device.free(block)
    device.free(block)


def double_unpin(device, stream, block, source):
    device.unpin(source)
    device.unpin(source)


def closed_stream(device, stream, block, source):
    device.close_stream(stream)
    device.copy_in(block, source, 32, stream)


@pytest.mark.parametrize("mistake", [host_as_device, pageable, too_long, double_free, double_unpin, closed_stream])
def test_wrong_addresses(device, mistake):
    stream, block = device.stream(), device.allocate(32)
    source, _ = pinned(device, VALUES)

    def code():
        mistake(device, stream, block, source)
        device.synchronize(stream)

    with pytest.raises(HazardError):
        code()


def test_streams_only_order_what_an_event_orders(device):
    first, second, event = device.stream(), device.stream(), device.event()
    seen = []
    device.queue(first, Op(lambda: seen.append("first")))
    device.record(event, first)
    device.queue(first, Op(lambda: seen.append("later")))
    device.queue(second, Op(lambda: seen.append("alone")))
    device.synchronize(second)
    assert seen == ["alone"]
    device.wait(second, event)
    device.queue(second, Op(lambda: seen.append("second")))
    device.synchronize(second)
    assert seen == ["alone", "first", "second"]


def test_the_default_stream_is_there_from_the_start(device):
    seen = []
    device.queue(LEGACY_STREAM, Op(lambda: seen.append(1)))
    device.synchronize(LEGACY_STREAM)
    assert seen == [1]


def test_time_between_events(device):
    stream, start, end = device.stream(), device.event(), device.event()
    device.record(start, stream)
    device.record(end, stream)
    with pytest.raises(HazardError, match="before it had happened"):
        device.elapsed(start, end)
    device.synchronize(stream)
    assert device.elapsed(start, end) >= 0


def test_a_graph_runs_when_launched_not_when_captured(device):
    stream, seen = device.stream(), []
    graph = device.capture(stream, lambda: device.queue(stream, Op(lambda: seen.append(1))))
    device.synchronize(stream)
    assert seen == []
    device.launch(graph, stream)
    device.launch(graph, stream)
    device.synchronize(stream)
    assert seen == [1, 1]
    device.close_graph(graph)
    with pytest.raises(HazardError, match="freed twice"):
        device.close_graph(graph)


def test_no_context_is_a_hazard():
    with pytest.raises(HazardError, match="no CUDA context is current"):
        HostDevice().allocate(1)


def test_out_of_memory(device):
    with pytest.raises(DeviceError, match="out of memory"):
        device.allocate(1 << 17)


def test_work_left_on_a_closed_stream(device):
    stream = device.stream()
    device.queue(stream, Op(lambda: None))
    with pytest.raises(HazardError, match="work still on it"):
        device.close_stream(stream)
