"""IO binding on the CPU provider: the same calls as on CUDA, with host addresses in the GPU's place."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from toolkit.backends.onnxruntime import backend as backend
from toolkit.backends.onnxruntime.bound import BoundExecutor, wait_on
from toolkit.errors import BackendError, ClosedError, InputError
from toolkit.runtime.arrays import DeviceArray
from toolkit.runtime.device import LEGACY_STREAM
from toolkit.testing.host import HostDevice, Op
from toolkit.types import Target

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def model():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "square", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


@pytest.fixture
def bound():
    asked, ended = [], []
    live = backend.session(model(), Target.parse("cpu"), {"threads": 1})
    executor = BoundExecutor(live, "x", "y", ("cpu", 0), asked.append, lambda: ended.append(1))
    yield executor, asked
    executor.close()
    executor.close()
    assert ended == [1]


def test_host_arrays_of_any_batch_and_stride(bound):
    executor, asked = bound
    for batch in (X, X[:1], X[::2], np.asfortranarray(X)):
        np.testing.assert_array_equal(executor.run(batch), batch * batch)
    assert asked == []


def test_device_arrays_are_read_where_they_are(bound):
    executor, asked = bound
    here = X.copy()
    array = DeviceArray(here.ctypes.data, here.shape, here.dtype, here)
    executor.run(array)
    here[0] = 7
    assert (executor.run(array)[0] == 49).all()
    assert asked == [array, array]


def test_a_batch_that_the_session_refuses(bound):
    with pytest.raises(BackendError, match="failed on a batch of 6"):
        bound[0].run(X.astype(np.int64))


def test_use_after_close(bound):
    bound[0].close()
    with pytest.raises(ClosedError):
        bound[0].run(X)


def test_the_producer_is_waited_for_and_the_place_checked():
    device = HostDevice()
    device.enter()
    address, done = device.allocate(16), []
    device.queue(LEGACY_STREAM, Op(lambda: done.append(1)))
    device.leave()
    wait_on(device)(DeviceArray(address, (1, 4), np.dtype("f4"), None, LEGACY_STREAM))
    assert done == [1]
    with pytest.raises(InputError, match="on no GPU that this process sees"):
        wait_on(device)(DeviceArray(X.ctypes.data, X.shape, X.dtype, X))


def test_cuda_that_is_not_there_is_an_error():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BackendError, match="has no CUDAExecutionProvider"):
        backend.session(model(), Target.parse("cuda"), {})
