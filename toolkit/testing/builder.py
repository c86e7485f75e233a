"""The builder of the played TensorRT: names, order and refusals of the real one; what a graph computes a `reader` tells.

A plan that it makes is known to the played Runtime of the same library. Like the real builder it answers None, and says why to
the logger, where it cannot build; it times every layer that its timing cache does not hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from toolkit.testing.played import DTYPES, ILogger, Network, Recorded, Severity
from toolkit.types import Array, TensorSpec

TYPES = {"FP8": 89, "BF16": 80}  # the first SM that computes in it
OPEN = -1


class Fault(NamedTuple):
    """What the parser refuses: the node's place, name and operator, and why."""

    place: int
    name: str
    operator: str
    why: str


class Parsed(NamedTuple):
    """A graph as a `reader` gives it: `layers` and `types` (FP8, BF16, ...) are those that compute."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    function: Callable[[dict[str, Array]], dict[str, Array]]
    layers: tuple[str, ...] = ()
    types: frozenset[str] = frozenset()
    faults: tuple[Fault, ...] = ()
    weights: Mapping[str, bytes] = {}  # its constants by name


class ITensor(Recorded):
    def __init__(self, spec: TensorSpec, library: Any) -> None:
        self.name, self.dtype = spec.name, library.DataType[DTYPES[spec.dtype]]
        self.shape = tuple(OPEN if isinstance(size, str) else size for size in spec.shape)


class INetworkDefinition(Recorded):
    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._parsed: Parsed | None = None
        self._typed = False
        self._data = b""
        self.num_inputs = self.num_outputs = 0

    def get_input(self, index: int) -> Any:
        assert self._parsed is not None
        return self._library.ITensor(self._parsed.inputs[index], self._library)

    def get_output(self, index: int) -> Any:
        assert self._parsed is not None
        return self._library.ITensor(self._parsed.outputs[index], self._library)


class ParserError(Recorded):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def node(self) -> int:
        return self._fault.place

    def node_name(self) -> str:
        return self._fault.name

    def node_operator(self) -> str:
        return self._fault.operator

    def desc(self) -> str:
        return self._fault.why


class OnnxParser(Recorded):
    def __init__(self, network: Any, logger: ILogger) -> None:
        self._network, self._faults = network, tuple[Fault, ...]()
        self.num_errors = 0

    def parse(self, model: bytes, path: str | None = None) -> bool:
        parsed: Parsed = self._library._reader(model)
        self._faults, self.num_errors = parsed.faults, len(parsed.faults)
        if not parsed.faults:
            network = self._network
            network._parsed, network._data = parsed, model
            network.num_inputs, network.num_outputs = len(parsed.inputs), len(parsed.outputs)
        return not parsed.faults

    def get_error(self, index: int) -> Any:
        return self._library.ParserError(self._faults[index])


class IOptimizationProfile(Recorded):
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))

    def _ordered(self) -> bool:
        """As the real one, which says so only when the profile is added."""
        every = [tuple(zip(*shapes, strict=False)) for shapes in self._shapes.values()]
        return bool(every) and all(low <= opt <= high for sizes in every for low, opt, high in sizes)


class ITimingCache(Recorded):
    """Its bytes: what the times hold for, then a line a layer that was timed."""

    def __init__(self, head: str, layers: set[str]) -> None:
        self._head, self._layers = head, layers

    def serialize(self) -> memoryview:
        return memoryview("\n".join([self._head, *sorted(self._layers)]).encode())


class IBuilderConfig(Recorded):
    def __init__(self, library: Any) -> None:
        self._profiles: list[Any] = []
        self._flags: set[Any] = set()
        self._pools: dict[Any, int] = {}
        self._timing: Any = None
        self._head = f"{library.__version__} {library._device.name} sm{library._device.sm}"

    def set_flag(self, flag: Any) -> None:
        if flag not in self._library.BuilderFlag:
            raise TypeError(f"{flag} is no BuilderFlag")
        self._flags.add(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool, 1 << 40)

    def add_optimization_profile(self, profile: Any) -> int:
        if not profile._ordered():
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        head, *layers = bytes(serialized_timing_cache).decode(errors="replace").split("\n")
        return self._library.ITimingCache(head or self._head, set(layers))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._head != self._head and not ignore_mismatch:
            return False
        self._timing = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._timing


class Builder(Recorded):
    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, self._library.ILogger):
            raise TypeError("Builder wants an ILogger")
        self.logger = logger

    def create_network(self, flags: int = 0) -> Any:
        typed = self._library.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = self._library.INetworkDefinition(self)
        network._typed = bool(flags & 1 << int(typed)) or not self._library.__version__.startswith("10.")
        return network

    def create_builder_config(self) -> Any:
        return self._library.IBuilderConfig(self._library)

    def create_optimization_profile(self) -> Any:
        return self._library.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> memoryview | None:
        parsed: Parsed | None = network._parsed
        if (why := self._refusal(network, config)) is not None or parsed is None:
            self.logger.log(Severity.ERROR, why or "the network is empty")
            return None
        profiles = [profile._shapes[parsed.inputs[0].name] for profile in config._profiles]
        batches = tuple((low[0], opt[0], high[0]) for low, opt, high in profiles)
        timed = {f"{layer} {batches}" for layer in parsed.layers}
        if config._timing is not None:
            timed -= config._timing._layers
            config._timing._layers |= timed
        self._library._timed.append(len(timed))
        options = (batches, sorted(str(flag) for flag in config._flags), config._head)
        plan = b"played plan " + hashlib.sha256(network._data + repr(options).encode()).digest()
        layers = tuple({"Name": name} for name in parsed.layers)
        flags = {flag.name for flag in config._flags}
        made = Network(parsed.inputs, parsed.outputs, batches, parsed.function, layers=layers)
        if flags & {"REFIT", "REFIT_IDENTICAL", "STRIP_PLAN"}:
            made = made._replace(weights=parsed.weights, stripped="STRIP_PLAN" in flags, identical="REFIT" not in flags)
        self._library._networks[plan] = made
        return memoryview(plan)

    def _refusal(self, network: Any, config: Any) -> str | None:
        """Why the real builder would not build, in its kind of words; None where it would."""
        parsed: Parsed | None = network._parsed
        if not network._typed:
            return "API Usage Error: Q/DQ in a network that is not strongly typed"
        sm = self._library._device.sm
        for kind in parsed.types if parsed is not None else ():
            if sm < TYPES.get(kind, 0):
                return f"Error Code 9: API Usage Error ({kind} is not supported on sm{sm})"
        for spec in parsed.inputs if parsed is not None else ():
            shape = self._library.ITensor(spec, self._library).shape
            for profile in config._profiles:
                if any(not fits(shape, given) for given in profile._shapes.get(spec.name, ((),))):
                    return f"Error Code 4: API Usage Error (a profile does not fit input {spec.name}: {shape})"
            if OPEN in shape and not config._profiles:
                return "Error Code 4: API Usage Error (Network has dynamic inputs, but no optimization profile has been defined.)"
        return None


def fits(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether a profile's shape is one that the input may have."""
    return len(shape) == len(given) and all(size in (OPEN, other) for size, other in zip(shape, given, strict=True))


class EngineInspector(Recorded):
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:
        return json.dumps({"Layers": list(self._engine._network.layers)})


BUILDING = (
    ITensor, INetworkDefinition, ParserError, OnnxParser, IOptimizationProfile, ITimingCache, IBuilderConfig, Builder,
    EngineInspector,
)  # fmt: skip
