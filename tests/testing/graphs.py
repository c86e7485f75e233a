"""ONNX for the played builder: what its parser refuses, by the rules of the real one, and a graph's answers by ONNX Runtime."""

from __future__ import annotations

import sys
from typing import Any

import onnx_ir as ir
import pytest

from tests.runtime.playing import recording
from toolkit.backends.tensorrt import backend as tensorrt
from toolkit.backends.tensorrt import library as libraries
from toolkit.graph.edit import constant
from toolkit.graph.run import parse_graph, predicting_runner
from toolkit.testing.builder import Fault, Parsed
from toolkit.testing.double import library
from toolkit.testing.host import HostDevice
from toolkit.types import Array, Target, TensorSpec

UNKNOWN = ("Det", "Unique")  # a few of those that TensorRT has no importer for
NAMES = {"FLOAT8E4M3FN": "FP8", "BFLOAT16": "BF16"}
SYMMETRIC = "Assertion failed: Non-zero zero point is not supported. Please use symmetric quantization."


def read(data: bytes) -> Parsed:
    """An ONNX file's bytes as the played builder takes them."""
    graph = parse_graph(data, "the test")
    types = {value.dtype.name for node in graph.graph for value in node.outputs if value.dtype is not None}
    faults = tuple(fault for index, node in enumerate(graph.graph) if (fault := refused(index, node)) is not None)
    live = None if faults else predicting_runner(graph, Target("tensorrt"), 1)
    name, answer = str(graph.graph.inputs[0].name), str(graph.graph.outputs[0].name)

    def function(arrays: dict[str, Array]) -> dict[str, Array]:
        assert live is not None
        return {answer: live(arrays[name])}

    return Parsed(
        inputs=tuple(map(spec_of, graph.graph.inputs)),
        outputs=tuple(map(spec_of, graph.graph.outputs)),
        function=function,
        layers=tuple(f"{node.name} {node.outputs[0].dtype}" for node in graph.graph),
        types=frozenset(NAMES[kind] for kind in types & NAMES.keys()),
        faults=faults,
        weights={name: tensor.tobytes() for name, value in graph.graph.initializers.items() if (tensor := value.const_value)},
    )


def spec_of(value: ir.Value) -> TensorSpec:
    assert value.shape is not None and value.dtype is not None
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(name=str(value.name), dtype=value.dtype.numpy().name, shape=shape)


def refused(index: int, node: ir.Node) -> Fault | None:
    name, op = node.name or "", node.op_type
    if node.domain or op in UNKNOWN:
        return Fault(index, name, op, "Plugin not found, are the plugin name, version, and namespace correct?")
    if op == "DequantizeLinear" and node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.INT32:
        return Fault(index, name, op, "input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8")
    if op in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) > 2 and node.inputs[2] is not None:
        zero = constant(node.inputs[2])
        if zero is not None and (zero.astype("float32").any() or zero.dtype.name == "uint8"):
            return Fault(index, name, op, SYMMETRIC)
    return None


class Shared(HostDevice):
    """One device for all who open it: a test looks at it afterwards."""

    opened = 0

    def close(self) -> None:
        self.opened -= 1


def install(monkeypatch: pytest.MonkeyPatch, sm: int = 89) -> Any:
    """Put a played TensorRT 11 and its GPU where `tensorrt` and the first GPU are looked for."""
    device = Shared(sm=sm, checked=False)
    played = library("tensorrt", recording(), device, {}, read)
    monkeypatch.setitem(sys.modules, "tensorrt", played)

    def best(index: int | None = None) -> Shared:
        device.opened += 1
        return device

    for module in ("toolkit.backends.tensorrt.backend", "toolkit.tuning.ways"):
        monkeypatch.setattr(f"{module}.best", best)
    assert libraries.load("tensorrt").trt is played and tensorrt.PLAN
    return played
