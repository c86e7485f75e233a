"""Arrays of other libraries, without a copy: NumPy views of host memory, and DeviceArray for what lies on a GPU."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from toolkit.errors import InputError
from toolkit.images.memory import unmasked
from toolkit.runtime.device import LEGACY_STREAM
from toolkit.types import Array

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType in dlpack.h
KINDS = {0: "i", 1: "u", 2: "f"}  # DLDataTypeCode in dlpack.h


class DeviceArray:
    """Somebody else's array on a GPU: C-contiguous, kept alive by `owner`.

    `stream` is the producer's stream, whose queued work must be done before the memory is read; None: nothing to wait for.
    `device` is the GPU's ordinal where the producer says it.
    """

    __slots__ = ("address", "device", "dtype", "owner", "shape", "stream")

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        owner: Any,
        stream: int | None = None,
        device: int | None = None,
    ) -> None:
        self.address, self.shape, self.dtype, self.owner, self.stream, self.device = address, shape, dtype, owner, stream, device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        start, stop, _ = rows.indices(len(self))
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        shape = (stop - start, *self.shape[1:])
        return DeviceArray(self.address + start * row, shape, self.dtype, self.owner, self.stream, self.device)


def adopt(value: Any) -> Array | DeviceArray:
    """An ndarray or a DeviceArray over the memory of `value`, by DLPack or the CUDA array interface. Raises InputError.

    DLPack comes first where a library has both: it alone says which stream's work to wait for in every version. A lazily
    conjugated or negated view of torch's is resolved first, which copies it: its memory holds other values than it has.
    """
    if isinstance(value, np.ndarray):
        return unmasked(value)
    try:
        value = _resolved(value)
        where = getattr(value, "__dlpack_device__", None)
        if where is not None:
            kind, index = where()
            if kind not in (CUDA, CUDA_MANAGED):
                return np.from_dlpack(value)
            return _from_dlpack(value, int(index))
        interface = getattr(value, "__cuda_array_interface__", None)
        if interface is not None:
            return _from_interface(value, interface)
    except InputError:
        raise
    except Exception as failure:  # whatever a producer raises for what it cannot export, or writes into half an interface
        reason = f"{type(failure).__name__}: {failure}".splitlines()[0].rstrip(": ")
        raise InputError(f"{type(value).__name__} cannot be shared: {reason}", remedy=_remedy(value)) from failure
    what = f"a runner takes arrays, not {type(value).__name__}"
    raise InputError(what, remedy="Use numpy.asarray, or anything with DLPack or the CUDA array interface")


def _resolved(value: Any) -> Any:
    """A torch tensor whose memory holds what it says; anything else as it is."""
    for lazy, resolve in (("is_conj", "resolve_conj"), ("is_neg", "resolve_neg")):
        if callable(getattr(value, lazy, None)) and callable(getattr(value, resolve, None)) and getattr(value, lazy)():
            value = getattr(value, resolve)()
    return value


def _remedy(value: Any) -> str:
    if getattr(value, "is_meta", False):
        return "A meta tensor has no values: give one with data"
    return "For a tensor with gradients: .detach()" if getattr(value, "requires_grad", False) else "Use numpy.asarray on the host"


def _from_interface(value: Any, interface: dict[str, Any]) -> DeviceArray:
    shape, dtype = tuple(int(size) for size in interface["shape"]), np.dtype(str(interface["typestr"]))
    address, strides = int(interface["data"][0]), interface.get("strides")
    if min(shape, default=0) < 0 or (strides is not None and len(strides) != len(shape)):
        raise InputError(f"a GPU array of shape {list(shape)} and strides {strides} cannot be")
    if address <= 0 and 0 not in shape:
        raise InputError("a GPU array without an address cannot be an input")
    _check_strides(shape, dtype, strides)
    if interface.get("mask") is not None:
        raise InputError("a masked GPU array cannot be an input")
    # Before version 3 the interface could not name a stream: then the default one is the only one to wait for.
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else LEGACY_STREAM
    if stream is not None and (not isinstance(stream, int) or stream < 1):  # version 3 forbids 0: it could mean two streams
        raise InputError(f"a GPU array on stream {stream!r} cannot be waited for")
    return DeviceArray(address, shape, dtype, value, stream)


class _DLTensor(ctypes.Structure):
    """DLTensor in dlpack.h, with its nested structs laid flat; the head of the DLManagedTensor that a capsule carries."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def _from_dlpack(value: Any, device: int) -> DeviceArray:
    # The producer makes the default stream wait for its own; waiting for the default stream is then enough.
    capsule = value.__dlpack__(stream=LEGACY_STREAM)
    tensor = _DLTensor.from_address(_pointer(capsule, b"dltensor") or 0)
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.code not in KINDS or tensor.lanes != 1:
        raise InputError(f"{type(value).__name__} holds a type that NumPy has no name for (DLPack code {tensor.code})")
    dtype = np.dtype(f"{KINDS[tensor.code]}{tensor.bits // 8}")
    strides = tuple(s * dtype.itemsize for s in tensor.strides[: tensor.ndim]) if tensor.strides else None
    _check_strides(shape, dtype, strides)
    # The capsule stays unconsumed: it frees what it holds when it goes, and it goes with the DeviceArray.
    return DeviceArray(tensor.data + tensor.byte_offset, shape, dtype, (value, capsule), LEGACY_STREAM, device)


def _check_strides(shape: tuple[int, ...], dtype: np.dtype[Any], strides: tuple[int, ...] | None) -> None:
    step = dtype.itemsize
    for size, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if size != 1 and stride != step:
            raise InputError("a GPU input must be contiguous in memory", remedy="Use its .contiguous(), or ascontiguousarray")
        step *= size


def host_view(address: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """An ndarray over host memory that somebody else keeps alive."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    buffer = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(buffer, dtype=dtype, count=count).reshape(shape)
