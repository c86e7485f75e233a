"""A TensorRT played on a HostDevice: the names and the rules of the real library, with a Python function as the network.

It is made from a recording of the real library's names (toolkit/testing/recordings), so a name that the real one does not have
is an AttributeError here too. Its rules are those of NVIDIA's documentation; breaking one is a HazardError that says which.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from toolkit.testing.builder import BUILDING
from toolkit.testing.host import HazardError, HostDevice, Op
from toolkit.testing.played import DTYPES, ILogger, Network, Recorded, Severity
from toolkit.testing.refitter import REFITTING, plan_of
from toolkit.types import Array, TensorSpec


class Named(enum.Enum):
    """An enumeration of the library: pybind's are numbers for who asks."""

    def __int__(self) -> int:
        return int(self.value)


class IRuntimeCache(Recorded):
    def __init__(self) -> None:
        self._blob = b""

    def serialize(self) -> memoryview:
        return memoryview(self._blob or b"kernels")

    def deserialize(self, blob: bytes) -> bool:
        self._blob = bytes(blob)
        return self._blob == b"kernels"

    def reset(self) -> bool:
        self._blob = b""
        return True


class IRuntimeConfig(Recorded):
    def __init__(self, library: Any) -> None:
        self._library = library
        self._strategy = library.ExecutionContextAllocationStrategy.STATIC
        self._cache: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy

    def create_runtime_cache(self) -> Any:
        return self._library.IRuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> Any:
        return self._cache


class Runtime(Recorded):
    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, self._library.ILogger):
            raise TypeError("Runtime wants an ILogger")
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        network = self._library._networks.get(bytes(serialized_engine))
        if network is None:
            self.logger.log(Severity.ERROR, "the played engine is unknown: magic tag does not match")
            return None
        return self._library.ICudaEngine(self, network, bytes(serialized_engine))


class ICudaEngine(Recorded):
    def __init__(self, runtime: Any, network: Network, head: bytes = b"") -> None:
        self._runtime, self._network, self._head = runtime, network, head
        self._tensors = {spec.name: spec for spec in (*network.inputs, *network.outputs)}
        self._scratch: dict[int, list[int]] = {}  # scratch memory -> streams with unfinished work that uses it
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = len(network.profiles)
        self.device_memory_size_v2 = network.workspace
        self.name = "played"
        self.refittable = bool(network.weights)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._library.TensorIOMode
        return modes.INPUT if any(spec.name == name for spec in self._network.inputs) else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._library.DataType[DTYPES[self._tensors[name].dtype]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self._tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(batch, *self.get_tensor_shape(name)[1:]) for batch in self._network.profiles[profile_index]]

    def create_engine_inspector(self) -> Any:
        return self._library.EngineInspector(self)

    def create_serialization_config(self) -> Any:
        return self._library.ISerializationConfig()

    def serialize_with_config(self, arg0: Any) -> memoryview:
        stays = not self._network.identical or any(flag.name == "INCLUDE_REFIT" for flag in arg0._flags)
        network = self._network if stays else self._network._replace(weights={})
        plan = plan_of(self._head, self._network.weights)
        self._library._networks[plan] = network
        return memoryview(plan)

    def create_runtime_config(self) -> Any:
        return self._library.IRuntimeConfig(self._library)

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        config = strategy if isinstance(strategy, self._library.IRuntimeConfig) else runtime_config
        kinds = self._library.ExecutionContextAllocationStrategy
        strategy = config.get_execution_context_allocation_strategy() if config is not None else strategy or kinds.STATIC
        return self._library.IExecutionContext(self, strategy == kinds.USER_MANAGED)


class IExecutionContext(Recorded):
    def __init__(self, engine: Any, needs_memory: bool) -> None:
        self.engine = engine
        self._device: HostDevice = self._library._device
        self._needs_memory, self._memory = needs_memory, 0
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._changes = 0  # how often shapes, addresses or the profile were set
        self._settled = -1  # the count of changes at the last run outside of a graph

    def _refuse(self, text: str) -> bool:
        self.engine._runtime.logger.log(Severity.ERROR, text)
        return False

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % 256 or size < self.engine.device_memory_size_v2:
            raise HazardError("scratch memory must be 256-byte aligned and as large as the engine asks")
        self._device.memory(memory, size)
        self._memory = memory

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._refuse(f"profile {profile_index} does not exist")
        self._profile, self._changes = profile_index, self._changes + 1
        self._shapes.clear()
        self._device.queue(stream_handle, Op(lambda: None))
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        spec = self.engine._tensors[name]
        low, _, high = self.engine._network.profiles[self._profile]
        if len(shape) != len(spec.shape) or tuple(shape[1:]) != tuple(spec.shape[1:]) or not low <= shape[0] <= high:
            return self._refuse(f"shape {tuple(shape)} of {name} is outside profile {self._profile}, which takes {low} to {high}")
        self._shapes[name], self._changes = tuple(shape), self._changes + 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine._tensors:
            return self._refuse(f"there is no tensor {name}")
        self._addresses[name], self._changes = int(memory), self._changes + 1
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = next(iter(self._shapes.values()), (-1,))[0]
        return (batch, *self.engine.get_tensor_shape(name)[1:])

    def infer_shapes(self) -> list[str]:
        return [spec.name for spec in self.engine._network.inputs if spec.name not in self._shapes]

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.engine._network.stripped:
            raise HazardError("a plan without weights was run before they were put in")
        if missing := self.infer_shapes():
            return self._refuse(f"no shape was set for {missing}")
        if missing := [name for name in self.engine._tensors if name not in self._addresses]:
            return self._refuse(f"no address was set for {missing}")
        if self._needs_memory and not self._memory:
            raise HazardError("an execution context without memory of its own was run before it was given any")
        captured = self._device.capturing(stream_handle)
        if captured and self._settled != self._changes:
            raise HazardError("the first run after a change of shapes or addresses must not be inside a graph")
        if not captured:
            self._settled = self._changes
        self._device.queue(stream_handle, self._op(stream_handle, captured))
        return True

    def _op(self, stream: int, captured: bool) -> Op:
        changes, scratch = self._changes, self.engine._scratch.setdefault(self._memory or id(self), [])
        network = self.engine._network
        sources = [self._place(spec) for spec in network.inputs]
        targets = [self._place(spec) for spec in network.outputs]

        def issue() -> None:
            if captured and self._changes != changes:
                raise HazardError("a graph was launched after the context that it was captured from had changed")
            if any(other != stream for other in scratch):
                raise HazardError("two streams use one execution context, or one scratch memory, at the same time")
            scratch.append(stream)

        def run() -> None:
            if self._device.checked:
                scratch.remove(stream)
            results = network.function({name: self._array(*place) for name, *place in sources})
            for name, *place in targets:
                self._array(*place)[...] = results[name]

        return Op(run, issue)

    def _place(self, spec: TensorSpec) -> tuple[str, int, int, Any, tuple[int, ...]]:
        """Name, address, bytes, dtype and shape of a tensor as it is bound now."""
        dtype, shape = np.dtype(spec.dtype), self.get_tensor_shape(spec.name)
        return spec.name, self._addresses[spec.name], int(np.prod(shape)) * dtype.itemsize, dtype, shape

    def _array(self, address: int, size: int, dtype: Any, shape: tuple[int, ...]) -> Array:
        array: Array = self._device.memory(address, size).view(dtype).reshape(shape)
        return array


PLAYED = (ILogger, IRuntimeCache, IRuntimeConfig, Runtime, ICudaEngine, IExecutionContext)


def library(
    name: str,
    recording: Mapping[str, Any],
    device: HostDevice,
    networks: Mapping[bytes, Network],
    reader: Callable[[bytes], Any] | None = None,
) -> Any:
    """A module that stands for `tensorrt` or `tensorrt_rtx`.

    `recording` is what toolkit/testing/recordings keeps of the real one: version `v`, and `api` with its classes, enums and the
    rest. `networks`: the bytes that `deserialize_cuda_engine` knows, and what each is. A `reader`: see `builder.py`.
    """
    module: Any = ModuleType(name)
    module.__version__ = recording["v"]
    module.__spec__ = ModuleSpec(name, None)  # torch asks it whether it is there
    module._device, module._networks, module._reader = device, dict(networks), reader
    module._timed = []  # how many layers each build timed
    module._baked = frozenset()  # constants that a plan holds for good, though it can be refitted
    api = recording["api"]
    for kind, entry in api.items():
        if "enum" in entry:
            setattr(module, kind, Named(kind, entry["enum"]))  # type: ignore[call-arg]  # the functional form
    played: dict[str, type] = {kind.__name__: kind for kind in PLAYED}
    if reader is not None:
        played |= {kind.__name__: kind for kind in (*BUILDING, *REFITTING)}
    for kind, entry in api.items():
        if "cls" in entry:
            setattr(module, kind, _as_recorded(played.get(kind, type(kind, (), {})), frozenset(entry["cls"]), module))
    names = {name: dtype for dtype, name in DTYPES.items()}
    if "nptype" in api:
        module.nptype = lambda trt_type: np.dtype(names[trt_type.name])
    return module


def _as_recorded(kind: type, names: frozenset[str], module: Any) -> type:
    body = {name: value for name, value in vars(kind).items() if name.startswith("_") or name in names}
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)
    return type(kind.__name__, (Recorded,), {**body, "_names": names, "_library": module})
