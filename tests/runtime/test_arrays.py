import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.images.picture import preprocess
from toolkit.recipe import Preprocess
from toolkit.runtime.arrays import DeviceArray, adopt, host_view
from toolkit.runtime.device import LEGACY_STREAM


def test_ndarrays_pass_as_they_are():
    array = np.zeros((2, 3), np.float32)
    assert adopt(array) is array


def test_a_torch_tensor_on_the_cpu_is_shared_not_copied():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    array = adopt(tensor)
    tensor[0, 0] = 9
    assert array[0, 0] == 9
    with pytest.raises(InputError, match=r"\.detach\(\)"):
        adopt(tensor.requires_grad_())


@pytest.mark.parametrize("value", [[1.0, 2.0], "image.png", None, 3])
def test_what_is_no_array_is_refused(value):
    with pytest.raises(InputError, match=f"not {type(value).__name__}"):
        adopt(value)


def test_lazy_views_of_torch_are_resolved():
    """Their memory holds the values before the sign or the conjugate: shared as it is, the answer would be another's."""
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[1.0, -2.0]])
    assert adopt(torch._neg_view(tensor)).tolist() == [[-1.0, 2.0]]
    imaginary = torch.tensor([1 + 2j]).conj().imag  # a negative view, as torch makes it
    assert imaginary.is_neg()
    assert adopt(imaginary).tolist() == [-2.0]
    assert adopt(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]


def test_a_meta_tensor_has_nothing_to_share():
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="A meta tensor has no values"):
        adopt(torch.zeros(2, 3, device="meta"))


class OnGpu:
    """A tensor that says that its memory is on GPU 1, and hands out torch's own capsule."""

    def __init__(self, tensor):
        self.tensor, self.streams = tensor, []

    def __dlpack_device__(self):
        return (2, 1)

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        return self.tensor.__dlpack__()


def test_a_capsule_is_read_as_torch_writes_it():
    torch = pytest.importorskip("torch")
    for dtype, name in ((torch.float32, "float32"), (torch.float16, "float16"), (torch.uint8, "uint8"), (torch.int64, "int64")):
        tensor = torch.zeros(7, 3, 4, dtype=dtype)[2:]  # an offset into its storage
        producer = OnGpu(tensor)
        array = adopt(producer)
        assert isinstance(array, DeviceArray)
        assert (array.address, array.shape, array.dtype, array.device) == (tensor.data_ptr(), (5, 3, 4), np.dtype(name), 1)
        assert producer.streams == [LEGACY_STREAM] == [array.stream]


def test_capsules_that_cannot_be_read():
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="contiguous"):
        adopt(OnGpu(torch.zeros(4, 6).t()))
    with pytest.raises(InputError, match="no name for"):
        adopt(OnGpu(torch.zeros(4, dtype=torch.bfloat16)))


class Interface:
    def __init__(self, **changes):
        standard = {"shape": (4, 2), "typestr": "<f4", "data": (4096, False), "version": 3, "stream": 7}
        self.__cuda_array_interface__ = standard | changes


def test_the_cuda_array_interface():
    array = adopt(Interface())
    assert (array.address, array.shape, array.dtype, array.stream) == (4096, (4, 2), np.dtype("f4"), 7)
    assert adopt(Interface(stream=None)).stream is None
    assert adopt(Interface(version=2)).stream == LEGACY_STREAM
    assert adopt(Interface(strides=(8, 4))).shape == (4, 2)
    for wrong in (
        {"strides": (4, 16)}, {"mask": Interface()}, {"strides": (4,)}, {"shape": (-1, 2)}, {"shape": None}, {"shape": ("a", 2)},
        {"typestr": "<q9"}, {"typestr": None}, {"data": None}, {"data": (0, False)},
        {"stream": 0}, {"stream": "x"}, {"version": "x"},
    ):  # fmt: skip
        with pytest.raises(InputError):
            adopt(Interface(**wrong))


@pytest.mark.parametrize("key", ["shape", "typestr", "data"])
def test_half_an_interface_is_refused(key):
    half = Interface()
    del half.__cuda_array_interface__[key]
    with pytest.raises(InputError, match=f"Interface cannot be shared: KeyError: '{key}'"):
        adopt(half)


def test_a_producer_that_fails_is_an_input_error():
    class Broken:
        def __dlpack_device__(self):
            raise ZeroDivisionError("no device")

    with pytest.raises(InputError, match="Broken cannot be shared: ZeroDivisionError: no device"):
        adopt(Broken())


def test_rows_of_a_device_array():
    rows = adopt(Interface())[1:3]
    assert (rows.address, rows.shape, len(rows)) == (4096 + 8, (2, 2), 2)


def test_a_view_of_host_memory():
    array = np.arange(6, dtype=np.int32)
    view = host_view(array.ctypes.data, (2, 3), np.int32)
    view[1, 2] = 9
    assert array[5] == 9


def test_masked_values_are_not_taken_for_what_lies_beneath():
    array = np.ma.masked_greater(np.arange(6, dtype=np.float32).reshape(2, 3), 3)
    with pytest.raises(InputError, match=r"masked values cannot be taken. Say what they are: array\.filled"):
        adopt(array)
    assert adopt(np.ma.masked_greater(array, 99).filled(0)).tolist() == [[0, 1, 2], [3, 0, 0]]
    with pytest.raises(InputError, match="masked values"):
        preprocess(np.ma.masked_equal(np.zeros((4, 4, 3), np.uint8), 0), Preprocess(size=(4, 4)))
