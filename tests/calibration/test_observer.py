"""What the watched graph puts out, in whatever layout, are the values of the plain graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from tests.calibration.network import TENSORS, network
from toolkit.calibration.observer import Observer
from toolkit.onnxfile import serialize
from toolkit.types import Float


@pytest.mark.parametrize("channels", [8, 16, 24, 48])  # less than a block, one block, one and a half, three
def test_every_value_is_there_once(images: Float, channels: int) -> None:
    graph, outputs = network(channels=channels), [name for name in TENSORS if name != "input"]
    plain = graph.clone()
    plain.graph.outputs[:] = [value for node in plain.graph for value in node.outputs if value.name in outputs]
    session = onnxruntime.InferenceSession(serialize(plain), providers=["CPUExecutionProvider"])
    expected = dict(zip(outputs, session.run(outputs, {"input": images[:1]}), strict=True))
    walk = Observer(graph, TENSORS, 1).walk()
    for _ in range(2):  # the first image finds memory, the others write it again
        found = {name: values.copy() for name, values in walk(images[:1])}
        assert sorted(found) == sorted(["input", *expected])
        assert np.array_equal(found["input"], images[:1])
        for name in outputs:
            assert np.array_equal(np.sort(found[name], axis=None), np.sort(expected[name], axis=None))


def test_a_tensor_that_is_constant(images: Float) -> None:
    graph = network()
    bias = graph.graph.initializers["b1"]
    conv, twice = graph.graph.node(0), ir.node("Add", [bias, bias])
    twice.outputs[0].name = "twice"
    graph.graph.insert_before(conv, twice)
    conv.replace_input_with(2, twice.outputs[0])
    walk = Observer(graph, ["twice", "sum"], 1).walk()
    for _ in range(2):
        found = {name: values.copy() for name, values in walk(images[:1])}
        assert sorted(found) == ["sum", "twice"]
        assert np.array_equal(found["twice"], 2 * np.asarray(bias.const_value))
