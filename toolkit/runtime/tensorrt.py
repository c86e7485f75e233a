"""TensorRTExecutor: a TensorRT or TensorRT-RTX engine, live on a GPU. The library comes in from outside."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.disk.files import read_regular, write_atomically
from toolkit.errors import DeviceError, EngineError, InputError
from toolkit.manifest import Manifest
from toolkit.runtime.arrays import DeviceArray, host_view
from toolkit.runtime.device import Device, current
from toolkit.runtime.foreign import AGAIN, refuse_foreign
from toolkit.runtime.pool import Pool
from toolkit.runtime.slot import Slot, SlotSpec, Tensor
from toolkit.types import Array, Float

CONTEXTS = 2  # one computes while the other copies; more only cost memory, unless more threads call at once


class Part(NamedTuple):
    """The rows of a batch that go to the engine in one call, and the profile that takes them."""

    start: int
    stop: int
    profile: int


class TensorRTExecutor:
    """Runs an engine for any batch and any number of threads; owns `device` and closes it.

    Takes host arrays (through page-locked memory, or straight from them where they are page-locked themselves) and GPU
    arrays (in place). A batch larger than the engine takes is split: one part is copied while another computes.

    `library` is the module `tensorrt` or `tensorrt_rtx`, `logger` an ILogger of it, `said` what that logger heard last.
    `contexts` is how many calls may be on the GPU at once; `graphs=False` does without CUDA graphs.
    `refit` gets the engine once it is deserialized, before anything runs: a plan without weights is filled there.
    `jit_cache` is where TensorRT-RTX keeps the kernels that it compiles on this machine; read now, written by `close`.
    Raises EngineError where the engine is damaged, or not one for this library and GPU (the library is not asked then: some
    crash on a foreign file); DeviceError where the GPU refuses.
    """

    max_batch: int | None = None
    zero_copy = True

    def __init__(
        self,
        library: Any,
        device: Device,
        data: bytes,
        manifest: Manifest,
        *,
        logger: Any,
        said: Callable[[], str] = str,
        contexts: int = CONTEXTS,
        graphs: bool = True,
        refit: Callable[[Any], None] | None = None,
        jit_cache: str | Path | None = None,
    ) -> None:
        self._name, self._device, self._said, self._graphs = manifest.name, device, said, graphs
        self._cache_file = None if jit_cache is None else Path(jit_cache)
        self._runtime: Any = None
        self._engine: Any = None
        self._setting: Any = None  # what execution contexts are made with
        self._cache: Any = None
        try:
            refuse_foreign(manifest, library, device)
            with current(device):
                self._deserialize(library, data, logger, bool(manifest.settings.get("version_compatible")))
                if refit is not None:
                    refit(self._engine)
                self._prepare(library, manifest, contexts)
        except BaseException:
            self._setting = self._cache = self._engine = self._runtime = None  # before the context that they live in
            with suppress(DeviceError):  # what went wrong first is what counts
                device.close()
            raise

    def _deserialize(self, library: Any, data: bytes, logger: Any, carries_runtime: bool) -> None:
        self._runtime = library.Runtime(logger)
        if carries_runtime:  # a version-compatible plan holds code of its own, which TensorRT runs only when told that it may
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f"{library.__name__} refuses {self._name}: {self._said() or 'it gives no reason'}", remedy=AGAIN)

    def _prepare(self, library: Any, manifest: Manifest, contexts: int) -> None:
        plan, self.profiles = self._plan(library, manifest)
        self.parts = lru_cache(maxsize=1024)(self._parts)
        self._input, self._answer_shape, self._largest = plan.input, plan.outputs[0].shape, plan.largest
        self._lent: list[int] = []
        self._pool: Pool[Slot] = Pool(lambda: self._new_slot(plan), self._end_slot, contexts, f"the runner of {self._name}")
        self._pool.release(self._pool.acquire())  # the first slot now: running out of memory belongs to loading

    def _plan(self, library: Any, manifest: Manifest) -> tuple[SlotSpec, list[tuple[int, int, int]]]:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        wanted = [spec.name for spec in (*manifest.inputs, *manifest.outputs)]
        if sorted(names) != sorted(wanted):
            raise EngineError(f"{self._name} has the tensors {names}, its manifest says {wanted}", remedy=AGAIN)

        def tensor(name: str) -> Tensor:
            dtype = np.dtype(library.nptype(self._engine.get_tensor_dtype(name)))
            return Tensor(name, dtype, tuple(self._engine.get_tensor_shape(name))[1:])

        source = tensor(manifest.inputs[0].name)
        count = self._engine.num_optimization_profiles
        shapes = [self._engine.get_tensor_profile_shape(source.name, i) for i in range(count)]
        profiles = [(int(low[0]), int(opt[0]), int(high[0])) for low, opt, high in shapes]
        jit = hasattr(library, "CudaGraphStrategy")
        self._set_up_contexts(library, jit)
        plan = SlotSpec(
            input=source,
            outputs=tuple(tensor(spec.name) for spec in manifest.outputs),
            largest=max(high for _, _, high in profiles),
            workspace=0 if jit else int(self._engine.device_memory_size_v2),
            context=lambda: self._engine.create_execution_context(self._setting),
            failed=self._failed,
            # TensorRT-RTX captures graphs itself: it alone knows when its just-in-time kernels are ready for that.
            capture=self._graphs and self._device.graphs and not jit,
        )
        return plan, profiles

    def _set_up_contexts(self, library: Any, jit: bool) -> None:
        """What to make execution contexts with, and TensorRT-RTX's cache of compiled kernels."""
        if not jit:
            # We hand the scratch memory in, so that all contexts of a slot share one block.
            self._setting = library.ExecutionContextAllocationStrategy.USER_MANAGED
            return
        self._setting = config = self._engine.create_runtime_config()
        if self._graphs:
            config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = config.create_runtime_cache()
        with suppress(OSError):  # none was kept, or it has just been removed
            if self._cache_file is not None:
                self._cache.deserialize(read_regular(self._cache_file))  # False where another version wrote it: it stays empty
        config.set_runtime_cache(self._cache)

    def _new_slot(self, plan: SlotSpec) -> Slot:
        with current(self._device):
            return Slot(plan, self._device)

    def _end_slot(self, slot: Slot) -> None:
        with current(self._device):
            slot.close()

    def _failed(self, what: str) -> DeviceError:
        return DeviceError(f"{self._name} {what}: {self._said() or 'the library gives no reason'}", remedy="Run: toolkit doctor")

    def run(self, batch: Array | DeviceArray) -> Float:
        """[N, ...] on the host or on this GPU -> logits float32 [N, classes]. Raises InputError, DeviceError, ClosedError."""
        parts = self.parts(len(batch))
        slot = self._pool.acquire()
        owed = self._device.enter()
        try:
            if isinstance(batch, DeviceArray):
                self._check_place(batch)
            if len(parts) == 1:
                slot.start(batch, parts[0].profile)
                answer = slot.finish()
            else:
                answer = self._run_parts(slot, batch, parts)
        except BaseException:
            with suppress(DeviceError):  # what went wrong first is what counts
                self._pool.discard(slot)
            raise
        else:
            self._pool.release(slot)
            return answer
        finally:
            if owed:
                self._device.leave()

    def _run_parts(self, first: Slot, batch: Array | DeviceArray, parts: tuple[Part, ...]) -> Float:
        """Two slots in turns where a second one is free: while one computes, the next part is staged and copied in."""
        answer = np.empty((len(batch), *self._answer_shape), np.float32)
        second = self._pool.try_acquire()
        slots = [first] if second is None else [first, second]
        running: deque[tuple[Slot, Part]] = deque()

        def finish() -> None:
            slot, part = running.popleft()
            answer[part.start : part.stop] = slot.finish()

        try:
            for turn, part in enumerate(parts):
                if len(running) == len(slots):
                    finish()
                slot = slots[turn % len(slots)]
                slot.start(batch[part.start : part.stop], part.profile)
                running.append((slot, part))
            while running:
                finish()
        except BaseException:
            if second is not None:
                with suppress(DeviceError):
                    self._pool.discard(second)
            raise
        if second is not None:
            self._pool.release(second)
        return answer

    def _parts(self, count: int) -> tuple[Part, ...]:
        """How a batch of `count` goes to the engine. Raises InputError where no profile takes it."""
        pieces = -(-count // self._largest)
        full = [self._largest] * (count // self._largest) + [count % self._largest] * (count % self._largest > 0)
        even = [count // pieces + (i < count % pieces) for i in range(pieces)]
        for sizes in (full, even):  # even parts where the rest would be smaller than any profile's least
            chosen = [self._profile(size) for size in sizes]
            if None not in chosen:
                ends = np.cumsum(sizes).tolist()
                return tuple(Part(e - s, e, p) for s, e, p in zip(sizes, ends, chosen, strict=True) if p is not None)
        ranges = ", ".join(f"{low} to {high}" for low, _, high in self.profiles)
        what = f"{self._name} takes no batch of {count}: its profiles are {ranges}"
        raise InputError(what, remedy="Change `build.batch` and build again")

    def _profile(self, size: int) -> int | None:
        """The profile that takes `size` and is tuned for the nearest batch."""
        fits = [(abs(opt - size), i) for i, (low, opt, high) in enumerate(self.profiles) if low <= size <= high]
        return min(fits)[1] if fits else None

    def pinned(self, count: int) -> Array:
        """An input array for `count` images in page-locked memory: fill it, run it, and no copy is made on the host.

        It is the caller's until `close`, and must not be touched after that. Raises ClosedError, DeviceError.
        """
        slot = self._pool.acquire()  # keeps `close` away meanwhile
        try:
            with current(self._device):
                address = self._device.pin(count * self._input.row)
            self._lent.append(address)
            return host_view(address, (count, *self._input.shape), self._input.dtype)
        finally:
            self._pool.release(slot)

    def time_on_device(self, batch: int, runs: int) -> list[float]:
        """Seconds of each of `runs` runs at this batch by the GPU's own clock: compute only, input and output stay there.

        Raises InputError where the engine cannot take the batch in one call.
        """
        parts = self.parts(batch)
        if len(parts) > 1:
            raise InputError(f"{self._name} takes at most {self._largest} images in one call, not {batch}")
        slot = self._pool.acquire()
        try:
            with current(self._device):
                seconds = slot.time(parts[0].profile, batch, runs)
        except BaseException:
            with suppress(DeviceError):  # what went wrong first is what counts
                self._pool.discard(slot)
            raise
        self._pool.release(slot)
        return seconds

    def _check_place(self, array: DeviceArray) -> None:
        device = self._device
        there = device.ordinal(array.address)
        if there != device.index or array.device not in (None, there):
            place = "on no GPU that this process sees" if there is None else f"on GPU {there}"
            what = f"the input is {place}, {self._name} runs on GPU {device.index}"
            raise InputError(what, remedy=f"Move it to GPU {device.index}")

    def close(self) -> None:
        """Wait for the calls that run, refuse those that wait, give everything back. A second call does nothing."""
        if not self._pool.close():
            return
        try:
            with current(self._device):
                for address in self._lent:
                    self._device.unpin(address)
                self._save_cache()
                self._setting = self._cache = self._engine = self._runtime = None  # in this order: each needs the next
        finally:
            self._device.close()

    def _save_cache(self) -> None:
        if self._cache is None or self._cache_file is None:
            return
        try:
            self._cache_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._cache_file, bytes(self._cache.serialize()))
        except OSError as error:  # the next start is slower, nothing else is lost: no reason to fail an app that ends
            what = f"the kernels compiled for {self._name} cannot be kept in {self._cache_file}: {error}"
            warnings.warn(f"{what}. Name a writable file as jit_cache", RuntimeWarning, stacklevel=2)
