"""Arrays and tensors as pictures: which axis holds the channels and what the values mean, from shape and dtype alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.types import Array

CHANNELS = ((1, 3), (4,))  # gray or RGB; only then RGB with transparency
_TAKEN = "A picture is [H, W], [H, W, C] or [C, H, W] with 1, 3 or 4 channels"
_VALUES = "Values are uint8, uint16, floats from 0 to 1, or whole numbers from 0 to 255"


def is_array(value: Any) -> bool:
    """Whether `value` is an ndarray, or a tensor of another library that NumPy can read."""
    return isinstance(value, np.ndarray) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def split(value: Any, gray: bool) -> list[Any] | None:
    """The pictures of an array [N, ...] in order; None where it is a single one. Raises InputError.

    [N, H, W] are gray pictures, unless the last axis, or for colors the first, has a number of channels. `gray`: the network
    takes gray pictures, so that [3, H, W] could be three of them.
    """
    shape = tuple(value.shape)
    if len(shape) == 2:
        return None
    if len(shape) > 2 and shape[-1] == 2:  # else a picture of H pixels' height would be as many pictures, two pixels wide
        what = f"an array of shape {list(shape)} has two channels: gray with transparency"
        raise InputError(what, remedy="Give array[..., 0], its gray values")
    if len(shape) == 3:
        axis = _axis(shape, _first(value))
        if axis == 0 and gray and shape[0] > 1 and not _first(value):
            what = f"an array of shape {list(shape)} is one picture with its channels first, or {shape[0]} gray ones"
            raise InputError(what, remedy="Give list(array) for gray ones, array.transpose(1, 2, 0) for one")
        return None if axis is not None else list(value)
    if len(shape) == 4 and _axis(shape[1:], _first(value)) is not None:
        return list(value)
    raise InputError(f"an array of shape {list(shape)} holds no pictures", remedy=_TAKEN)


def pixels_of(value: Any) -> NDArray[np.uint8]:
    """One picture as uint8 [H, W], [H, W, 3] or [H, W, 4]. Raises InputError.

    16-bit values lose their lower 8 bits, as those of 16-bit files do; floats are rounded to the nearest of 256 levels.
    """
    array = _array(value)
    shape = array.shape
    axis = _axis(shape, _first(value)) if array.ndim == 3 else None
    if 0 in shape or array.ndim not in (2, 3) or (array.ndim == 3 and axis is None):
        raise InputError(f"an array of shape {list(shape)} is not a picture", remedy=_TAKEN)
    bytes_ = _levels(array)
    if axis is not None:
        bytes_ = np.moveaxis(bytes_, axis, -1)
        bytes_ = bytes_[..., 0] if bytes_.shape[-1] == 1 else bytes_
    return np.ascontiguousarray(bytes_)


def _first(value: Any) -> bool:
    """Whether the channels come first where both ends could be them: in PyTorch they do."""
    return type(value).__module__.partition(".")[0] == "torch"


def _axis(shape: tuple[int, ...], first: bool) -> int | None:
    """The axis of [., ., .] that holds the channels: the last one, or the first; where both could be, PyTorch's is the first."""
    order = (0, 2) if first else (2, 0)
    return next((axis for counts in CHANNELS for axis in order if shape[axis] in counts), None)


def unmasked(array: Array) -> Array:
    """The array. Raises InputError where values of it are masked: they would be taken for what lies beneath."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputError("an array with masked values cannot be taken", remedy="Say what they are: array.filled(VALUE)")
    return array


def _array(value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return unmasked(value)
    try:
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)  # which NumPy has not
    except Exception as error:  # whatever a library raises for a tensor that has gradients, or is elsewhere
        reason = (str(error).splitlines()[0] if str(error) else type(error).__name__).rstrip(".")
        what = f"a {type(value).__name__} cannot be read as an array: {reason}"
        raise InputError(what, remedy="Use .detach().cpu(), and to_dense() or dequantize()") from error


def _levels(array: Array) -> NDArray[np.uint8]:
    """The values as 0 to 255."""
    kind = array.dtype.kind
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        if 1 < array.max() < 256:
            what = f"a uint16 array from {array.min()} to {array.max()} is a black picture in 16 bits, or one in 8"
            raise InputError(what, remedy="Give array.astype(numpy.uint8) for 8 bits")
        return (array >> 8).astype(np.uint8)
    if kind not in "iuf":
        raise InputError(f"an array of {array.dtype} is not a picture", remedy=_VALUES)
    low, high = float(array.min()), float(array.max())
    if kind in "iu" and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    if kind == "f" and low >= -0.5 / 255 and high <= 1 + 0.5 / 255:
        return np.rint(np.clip(array, 0, 1).astype(np.float32) * 255).astype(np.uint8)
    what = f"an array of {array.dtype} from {low:g} to {high:g} is not a picture"
    if low < 0 and kind == "f":
        raise InputError(what, remedy="If it is preprocessed already, call the runner itself with a batch")
    raise InputError(what, remedy=_VALUES)
