"""Arrays of other libraries, without a copy: NumPy views of host memory, and DeviceArray for what lies on a GPU."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from toolkit.errors import InputError
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

    DLPack comes first where a library has both: it alone says which stream's work to wait for in every version.
    """
    if isinstance(value, np.ndarray):
        return value
    where = getattr(value, "__dlpack_device__", None)
    try:
        if where is not None:
            kind, index = where()
            if kind not in (CUDA, CUDA_MANAGED):
                return np.from_dlpack(value)
            return _from_dlpack(value, int(index))
        interface = getattr(value, "__cuda_array_interface__", None)
    except (BufferError, RuntimeError, TypeError) as failure:  # what producers raise for what they cannot export
        what = f"{type(value).__name__} cannot be shared: {failure}"
        raise InputError(what, remedy="For a tensor with gradients: .detach()") from failure
    if interface is None:
        what = f"a runner takes arrays, not {type(value).__name__}"
        raise InputError(what, remedy="Use numpy.asarray, or anything with DLPack or the CUDA array interface")
    return _from_interface(value, interface)


def _from_interface(value: Any, interface: dict[str, Any]) -> DeviceArray:
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    _check_strides(shape, dtype, interface.get("strides"))
    if interface.get("mask") is not None:
        raise InputError("a masked GPU array cannot be an input")
    # Before version 3 the interface could not name a stream: then the default one is the only one to wait for.
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else LEGACY_STREAM
    return DeviceArray(int(interface["data"][0]), shape, dtype, value, stream)


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
