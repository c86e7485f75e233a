"""BoundExecutor: an ONNX Runtime session on a GPU, which reads an input that lies there where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.errors import BackendError, ClosedError, InputError
from toolkit.runtime.arrays import DeviceArray
from toolkit.runtime.device import Device, current
from toolkit.types import Array, Float


class BoundExecutor:
    """Runs one session through IO binding: any batch, any number of threads, host arrays and GPU arrays.

    `place` is ONNX Runtime's name and number of the device; `ready` is asked about every GPU array before it is read; `end`
    is called once, by `close`.
    """

    max_batch: int | None = None
    zero_copy = True

    def __init__(
        self,
        live: Any,
        input_name: str,
        output_name: str,
        place: tuple[str, int],
        ready: Callable[[DeviceArray], None],
        end: Callable[[], None],
    ) -> None:
        self.session, self._input, self._output = live, input_name, output_name
        self._place, self._ready, self._end = place, ready, end

    def run(self, batch: Array | DeviceArray) -> Float:
        """[N, ...] -> logits float32 [N, classes], on the host. Raises BackendError, InputError, ClosedError."""
        live = self.session
        if live is None:
            raise ClosedError("this session is closed", remedy="Load the engine again")
        binding = live.io_binding()
        if isinstance(batch, DeviceArray):
            self._ready(batch)
            binding.bind_input(self._input, *self._place, batch.dtype, batch.shape, batch.address)
        else:
            binding.bind_cpu_input(self._input, np.ascontiguousarray(batch))
        binding.bind_output(self._output)  # on the host: ONNX Runtime copies it there as the last step of the run
        try:
            live.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's own classes, made while it loads
            raise BackendError(f"ONNX Runtime failed on a batch of {len(batch)}: {error}") from error
        logits: Float = binding.copy_outputs_to_cpu()[0]
        return logits

    def close(self) -> None:
        if self.session is not None:
            self.session = None
            self._end()


def wait_on(device: Device) -> Callable[[DeviceArray], None]:
    """What is asked about a GPU array: is it on this device, and has its producer finished? Raises InputError, DeviceError."""

    def ready(array: DeviceArray) -> None:
        with current(device):
            there = device.ordinal(array.address)
            if there != device.index:
                place = "on no GPU that this process sees" if there is None else f"on GPU {there}"
                raise InputError(f"the input is {place}, the session runs on GPU {device.index}")
            if array.stream is not None:
                device.synchronize(array.stream)  # ONNX Runtime's own stream cannot be told to wait

    return ready
