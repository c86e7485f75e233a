"""Slot: one stream with its memory and execution contexts. A thread holds one while it runs a batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import DeviceError
from toolkit.runtime.arrays import DeviceArray, host_view
from toolkit.runtime.device import Device
from toolkit.types import Array, Float

GRAPHS = 16  # CUDA graphs that a slot keeps; the one used longest ago gives way
SEEN = 256  # shapes and addresses that a slot remembers to have met
WORTH_A_LOOK = 1 << 16  # bytes: below this, staging costs less than asking the driver whether the array is page-locked


class Tensor(NamedTuple):
    """An input or output of the engine: `shape` is that of one image."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class SlotSpec(NamedTuple):
    """What a slot needs to know of an engine. `outputs[0]` is the logits.

    `context` makes an execution context; `workspace` is the bytes of scratch memory that it wants from us (0: it has its
    own). `failed` makes the error for a call that was refused. `capture`: whether to make CUDA graphs.
    """

    input: Tensor
    outputs: tuple[Tensor, ...]
    largest: int
    workspace: int
    context: Callable[[], Any]
    failed: Callable[[str], DeviceError]
    capture: bool


class _Key(NamedTuple):
    """What a CUDA graph is bound to: profile, batch, and the input's address (0: through the slot's own staging buffer)."""

    profile: int
    batch: int
    address: int
    on_host: bool


class _Held(NamedTuple):
    """A graph and the context that it was captured from, which nobody else may touch: a graph is bound to its state."""

    graph: int
    context: Any
    staged: Array  # where the input goes first, unless the graph reads it where it is
    answer: Array


class Slot:
    """`start` queues a batch, `finish` waits for its logits; the device's context must be current for both.

    A shape met for the second time gets a CUDA graph of its whole trip: copy in, compute, copy out.
    """

    def __init__(self, plan: SlotSpec, device: Device) -> None:
        self._plan, self._device = plan, device
        self._graphs: OrderedDict[tuple[int, int, int, bool], _Held] = OrderedDict()
        self._seen: OrderedDict[tuple[int, int, int, bool], None] = OrderedDict()
        self._timed: dict[_Key, tuple[int | None, Any]] = {}
        self._bound: _Key | None = None
        self._profile: int | None = None
        with ExitStack() as stack:  # unwinds what was had when a later step runs out of memory
            self.stream = self._own(stack, device.stream(), device.close_stream)
            self._event = self._own(stack, device.event(), device.close_event)
            self._end = self._own(stack, device.event(), device.close_event)
            self._input = self._own(stack, device.allocate(plan.largest * plan.input.row), device.free)
            self._outputs = [self._own(stack, device.allocate(plan.largest * t.row), device.free) for t in plan.outputs]
            self._workspace = self._own(stack, device.allocate(plan.workspace), device.free) if plan.workspace else 0
            # Filled by the CPU, read by the GPU; and the other way round.
            self._staged_at = self._own(stack, device.pin(plan.largest * plan.input.row), device.unpin)
            logits = plan.outputs[0]
            self._answer_at = self._own(stack, device.pin(plan.largest * logits.row), device.unpin)
            self._staged = host_view(self._staged_at, (plan.largest, *plan.input.shape), plan.input.dtype)
            self._answer = self._answered = host_view(self._answer_at, (plan.largest, *logits.shape), logits.dtype)
            self._context = self._new_context()
            stack.callback(self._drop)
            self._owned = stack.pop_all()

    @staticmethod
    def _own(stack: ExitStack, handle: int, end: Callable[[int], None]) -> int:
        stack.callback(end, handle)
        return handle

    def _new_context(self) -> Any:
        context = self._plan.context()
        if context is None:
            raise self._plan.failed("makes no execution context")
        if self._workspace:
            context.set_device_memory(self._workspace, self._plan.workspace)
        return context

    def start(self, batch: Array | DeviceArray, profile: int) -> None:
        """Queue copy, compute and copy back. `batch` must stay as it is until `finish`, unless it was staged."""
        count = len(batch)
        if isinstance(batch, DeviceArray):
            self._wait_for(batch)
            key = (profile, count, batch.address, False)
        else:
            key = (profile, count, self._pinned_address(batch), True)
        held = self._graphs.get(key)
        if held is not None:
            self._answered = held.answer
            if key[2] == 0:
                held.staged[...] = batch
            self._graphs.move_to_end(key)
            self._device.launch(held.graph, self.stream)
            return
        self._answered = self._answer[:count]
        if key[2] == 0:
            self._staged[:count] = batch
        if self._plan.capture and key in self._seen:
            self._capture(_Key(*key))
            return
        self._seen[key] = None
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        self._run_plain(_Key(*key))

    def _run_plain(self, key: _Key) -> None:
        if key != self._bound:
            self._bound = None
            self._bind(self._context, key, self._profile)
            self._bound, self._profile = key, key.profile
        self._queue(self._context, key)

    def finish(self) -> Float:
        """The logits of the batch that `start` queued: float32 [N, classes], of the caller's own."""
        self._device.synchronize(self.stream)
        return self._answered.astype(np.float32)

    def _pinned_address(self, batch: Array) -> int:
        """Where the GPU may read the batch itself; 0 where it has to be staged."""
        if batch.nbytes < WORTH_A_LOOK or not batch.flags.c_contiguous:
            return 0
        address: int = batch.__array_interface__["data"][0]
        return address if self._device.is_pinned(address) else 0

    def _wait_for(self, array: DeviceArray) -> None:
        if array.stream is not None:
            self._device.record(self._event, array.stream)
            self._device.wait(self.stream, self._event)

    def _capture(self, key: _Key) -> None:
        """Run the batch once in a context of its own, then record the same work as a graph for the next time.

        The plain run is not a luxury: TensorRT settles its inner state for a shape in the first run after it is set, and
        that must not end up inside a graph.
        """
        if len(self._graphs) >= GRAPHS:
            _, oldest = self._graphs.popitem(last=False)
            self._device.close_graph(oldest.graph)
        context = self._new_context()
        self._bind(context, key, None)
        self._queue(context, key)
        try:
            graph = self._device.capture(self.stream, lambda: self._queue(context, key))
        except DeviceError as error:
            error.remedy = "Load the engine with graphs=False"
            raise
        self._graphs[key] = _Held(graph, context, self._staged[: key.batch], self._answer[: key.batch])
        del self._seen[key]

    def _bind(self, context: Any, key: _Key, profile: int | None) -> None:
        """Set profile, shape and addresses of a context that stands at `profile`."""
        plan = self._plan
        if key.profile != profile and not context.set_optimization_profile_async(key.profile, self.stream):
            raise plan.failed(f"refuses profile {key.profile}")
        if not context.set_input_shape(plan.input.name, (key.batch, *plan.input.shape)):
            raise plan.failed(f"refuses a batch of {key.batch}")
        addresses = [(plan.input.name, self._input if key.on_host else key.address)]
        addresses += [(tensor.name, at) for tensor, at in zip(plan.outputs, self._outputs, strict=True)]
        for name, address in addresses:
            if not context.set_tensor_address(name, address):
                raise plan.failed(f"refuses the address of '{name}'")
        if missing := context.infer_shapes():
            raise plan.failed(f"wants shapes for {', '.join(missing)}")

    def _compute(self, context: Any, key: _Key) -> None:
        if not context.execute_async_v3(self.stream):
            raise self._plan.failed(f"fails on a batch of {key.batch}")

    def _queue(self, context: Any, key: _Key) -> None:
        plan = self._plan
        if key.on_host:
            self._device.copy_in(self._input, key.address or self._staged_at, key.batch * plan.input.row, self.stream)
        self._compute(context, key)
        self._device.copy_out(self._answer_at, self._outputs[0], key.batch * plan.outputs[0].row, self.stream)

    def time(self, profile: int, count: int, runs: int) -> list[float]:
        """Seconds of each of `runs` runs by the GPU's own clock, without copies; what the input holds does not matter."""
        device, key = self._device, _Key(profile, count, self._input, False)
        graph, context = self._timed.get(key) or self._timer(key)
        seconds = []
        for _ in range(runs):
            device.record(self._event, self.stream)
            if graph is not None:
                device.launch(graph, self.stream)
            else:
                self._compute(context, key)
            device.record(self._end, self.stream)
            device.synchronize(self.stream)
            seconds.append(device.elapsed(self._event, self._end))
        return seconds

    def _timer(self, key: _Key) -> tuple[int | None, Any]:
        """A graph of the computation alone (None where graphs are not ours to make), and its context."""
        context = self._new_context()
        self._bind(context, key, None)
        self._compute(context, key)
        graph = self._device.capture(self.stream, lambda: self._compute(context, key)) if self._plan.capture else None
        self._timed[key] = graph, context
        return graph, context

    def _drop(self) -> None:
        """A graph must go before the context that it was captured from."""
        graphs = [held.graph for held in self._graphs.values()] + [graph for graph, _ in self._timed.values()]
        for graph in graphs:
            if graph is not None:
                self._device.close_graph(graph)
        self._graphs.clear()
        self._timed.clear()
        self._context = None

    def close(self) -> None:
        """Wait for what is still queued, then give everything back."""
        try:
            self._device.synchronize(self.stream)
        finally:
            self._owned.close()
