"""The played builder refuses what the real one refuses; both are asked the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.playing import recording
from tests.testing.graphs import Shared, install, read
from toolkit.backends.tensorrt import backend as tensorrt
from toolkit.errors import EngineError, GraphError
from toolkit.recipe import Build
from toolkit.testing.double import library
from toolkit.types import Target

SMALL = Build(batch=(1, 2, 4))


def model(kind: str) -> ir.Model:
    """x [N, 3, 8, 8] -> y, with what `kind` says is wrong in it."""
    nodes, weights = [helper.make_node("Relu", ["x"], ["y"], name="relu")], []
    if kind == "unknown operator":
        nodes = [helper.make_node("Det", ["x"], ["y"], name="det")]
    elif kind == "zero point":
        weights = [numpy_helper.from_array(np.array(0.1, np.float32), "s"), numpy_helper.from_array(np.array(3, np.int8), "z")]
        nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q")]
        nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="d"))
    elif kind == "quantized bias":
        weights = [numpy_helper.from_array(np.array(0.1, np.float32), "s")]
        weights.append(numpy_helper.from_array(np.ones((3, 1, 1), np.int32), "b"))
        nodes = [helper.make_node("DequantizeLinear", ["b", "s"], ["c"], name="d")]
        nodes.append(helper.make_node("Add", ["x", "c"], ["y"], name="a"))
    shape = ["N", 3, 8, 8] if kind != "open size" else ["N", 3, "H", 8]
    answer = shape if kind != "unknown operator" else ["N", 3]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in (("x", shape), ("y", answer)))
    graph = helper.make_graph(nodes, "one", [x], [y], weights)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return install(monkeypatch)


@pytest.mark.parametrize("kind", ["unknown operator", "zero point", "quantized bias", "open size"])
def test_what_the_real_library_refuses_the_played_one_refuses_too(kind: str, played: Any, tmp_path: Path) -> None:
    targets = [Target("tensorrt")]
    if pytest.importorskip("tensorrt_rtx"):
        targets.append(Target("rtx", 89))
    told = []
    for target in targets:
        with pytest.raises(GraphError) as caught:
            tensorrt.compile(model(kind), SMALL, target, tmp_path)
        told.append((caught.value.remedy, caught.value.what.split(":")[0].removeprefix("TensorRT-RTX").removeprefix("TensorRT")))
    assert len(set(told)) == 1 and len(told) == 2


def test_a_plan_of_the_played_builder_runs_and_its_layers_are_listed(played: Any, tmp_path: Path) -> None:
    made = tensorrt.compile(model("fine"), SMALL, Target("tensorrt"), tmp_path)
    assert made.settings == {"sm": 89} and made.versions == {"tensorrt": recording()["v"]}
    network = played._networks[(tmp_path / made.file).read_bytes()]
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(network.function({"x": x})["y"], np.maximum(x, 0))
    assert network.profiles == ((1, 2, 4),) and "relu" in (tmp_path / tensorrt.LAYERS).read_text()


def test_the_timing_cache_spares_the_next_build_its_measuring(played: Any, tmp_path: Path) -> None:
    build = Build(batch=(1, 2, 4), timing_cache=True)
    for _ in range(2):
        tensorrt.compile(model("fine"), build, Target("tensorrt"), tmp_path)
    tensorrt.compile(model("fine"), Build(batch=(1, 2, 8), timing_cache=True), Target("tensorrt"), tmp_path)
    assert played._timed == [1, 0, 1]
    (file,) = (tmp_path / "cache" / "resnet-deploy" / "timing").iterdir()
    file.write_bytes(b"of another GPU\nrelu")
    with pytest.raises(EngineError, match="refuses the timing cache"):
        tensorrt.compile(model("fine"), build, Target("tensorrt"), tmp_path)


def test_types_that_a_gpu_lacks_are_refused(tmp_path: Path) -> None:
    """By the builder itself; the toolkit asks before (`refuse_types`)."""
    from toolkit.graph.fp16 import to_bf16
    from toolkit.onnxfile import serialize

    made = library("tensorrt", recording(), Shared(sm=75), {}, read)
    heard: list[str] = []

    class Logger(made.ILogger):  # type: ignore[misc, name-defined]
        def log(self, severity: Any, msg: str) -> None:
            heard.append(msg)

    logger = Logger()
    builder = made.Builder(logger)
    network = builder.create_network(1 << int(made.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert made.OnnxParser(network, logger).parse(serialize(to_bf16(model("fine"))))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    assert builder.build_serialized_network(network, config) is None
    assert config.add_optimization_profile(profile) == -1
    profile.set_shape("x", (2, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))
    assert config.add_optimization_profile(profile) == -1  # the real one says nothing before this either
    profile.set_shape("x", (1, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))
    assert config.add_optimization_profile(profile) == 0
    assert builder.build_serialized_network(network, config) is None and "BF16 is not supported on sm75" in heard[-1]
