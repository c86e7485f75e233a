"""Engines that TensorRT-RTX really builds here, for GPUs that are not here."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from toolkit import pipeline
from toolkit.backends.tensorrt import backend as tensorrt
from toolkit.backends.tensorrt.layers import int8_layers
from toolkit.errors import BackendError, DeviceError, GraphError
from toolkit.graph import load as loading
from toolkit.graph.edit import constant
from toolkit.graph.export import export
from toolkit.graph.fp16 import to_bf16, to_fp16
from toolkit.graph.lint import lint
from toolkit.graph.qdq import quantize
from toolkit.manifest import Manifest
from toolkit.recipe import Build, Calibration, Precision, Preprocess, Recipe
from toolkit.reference.resnet import ResNet
from toolkit.types import Target

pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")

ROOT = Path(__file__).parents[3]
SMS = (86, 89, 120)
SMALL = Build(batch=(1, 2, 4))


class Guess:
    """Ranges for graphs whose answers nobody looks at."""

    def range(self, tensor, method, percentile=99.99, *, levels=127):
        return -4.0, 4.0


def int8(graph, keep=()):
    return quantize(graph, Guess(), Precision(int8=True, keep=keep), Calibration(), scheme="tensorrt")


def plainly(name):
    """A packaged model's INT8 recipe with a few images and nothing left to choose: here it is about what is compiled."""
    recipe = Recipe.load(ROOT / "engines" / f"{name}-int8.toml")
    fixed = {"equalize": "none", "weights": "absmax", "rounding": "nearest", "bias_correction": False}
    return msgspec.structs.replace(
        recipe,
        precision=msgspec.structs.replace(recipe.precision, **fixed),
        calibration=msgspec.structs.replace(recipe.calibration, images=16, method="minmax"),
    )


@functools.cache
def trip(name):
    """Its trip up to the target."""
    return pipeline.prepare(plainly(name), proof=False)


@functools.cache
def resnet50():
    torch.manual_seed(0)
    return export(ResNet("resnet50"), Preprocess())


@pytest.fixture(autouse=True)
def _nothing_is_kept(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def compiled(graph, folder, sm=89, build=SMALL):
    folder.mkdir(exist_ok=True)
    found = tensorrt.compile(graph, build, Target("rtx", sm), folder)
    return found, (folder / found.file).read_bytes(), json.loads((folder / tensorrt.LAYERS).read_text())["layers"]


def weight_bytes(graph):
    """Each INT8 convolution's weights as TensorRT stores them, K x R x S x C; none of the first, whose channels it pads."""
    found = {}
    for node in graph.graph:
        if node.name in int8_layers(graph) and node.op_type == "Conv":
            source = node.inputs[1].producer()
            source = source.inputs[0].producer() if source.op_type == "Cast" else source
            weight = constant(source.inputs[0])
            if weight.shape[1] % 4 == 0:
                found[node.name] = weight.transpose(0, 2, 3, 1).tobytes()
    return found


@pytest.mark.parametrize("sm", SMS)
@pytest.mark.parametrize("name", ["fashion-resnet18", "fashion-resnet50"])
def test_packaged_models_build_at_every_precision(name, sm, tmp_path):
    plain = trip(name).graph
    graphs = {"fp32": plain, "fp16": to_fp16(plain), "int8": pipeline.typed(trip(name), Target("rtx", sm))}
    plans = {}
    for precision, graph in graphs.items():
        found, plans[precision], layers = compiled(graph, tmp_path / precision, sm, trip(name).recipe.build)
        assert found.settings == {"sm": sm}
        dtypes = {dtype for row in layers for dtype in row["inputs"]}
        assert ("Int8" in dtypes) == (precision == "int8")
        if precision == "int8":
            count = len(int8_layers(graph))
            weights = weight_bytes(graph)
            assert len(found.notes) == 1 and found.notes[0].startswith(f"{count} of {count} INT8 layers")
        else:
            assert found.notes == ()
            assert any(kind in dtypes for kind in (["Half"] if precision == "fp16" else ["Float"]))
    assert len(weights) > 15
    assert [name for name, data in weights.items() if data not in plans["int8"]] == []
    assert [name for name, data in weights.items() if len(data) > 4096 and data in plans["fp16"]] == []


def test_full_resnet50_builds_and_shrinks(tmp_path):
    quantized = to_fp16(int8(resnet50()))
    graphs = {"fp32": resnet50(), "fp16": to_fp16(resnet50()), "int8": quantized}
    sizes = {}
    for (precision, graph), sm in zip(graphs.items(), SMS, strict=True):
        found, plan, layers = compiled(graph, tmp_path / precision, sm)
        sizes[precision] = len(plan)
        assert layers and (precision == "int8" or found.notes == ())
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]
    weights = weight_bytes(quantized)
    assert len(weights) == 52  # every convolution but the first
    assert all(data in plan for data in weights.values())


def test_a_portable_engine_costs_a_few_bytes_and_says_what_it_is_for(tmp_path):
    graph = pipeline.typed(trip("fashion-resnet18"), Target.parse("rtx"))
    one, single, layers = compiled(graph, tmp_path / "one", 89)
    (tmp_path / "all").mkdir()
    every = tensorrt.compile(graph, SMALL, Target.parse("rtx"), tmp_path / "all")
    plan = (tmp_path / "all" / every.file).read_bytes()
    kernels = json.loads((tmp_path / "all" / tensorrt.LAYERS).read_text())["layers"]
    assert every.settings == {"sms": [80, 86, 89, 120, 121]} and "sm80, sm86, sm89, sm120, sm121" in every.device
    assert abs(len(plan) - len(single)) < 1024 and len(kernels) == len(layers)
    assert every.notes == one.notes


@pytest.mark.parametrize(("compute", "half"), [("fp16", "Half"), ("bf16", "BFloat16")])
def test_fp8_is_computed_in_fp8_and_the_first_layer_in_half_precision(compute, half, tmp_path):
    here = trip("fashion-resnet18")
    precision = msgspec.structs.replace(here.recipe.precision, int8=False, fp8=True, compute=compute)
    here = here._replace(recipe=msgspec.structs.replace(here.recipe, precision=precision))
    target = Target.parse("rtx:sm89+")
    graph = pipeline.typed(here, target)
    tmp_path.joinpath("engine").mkdir()
    found = tensorrt.compile(graph, SMALL, target, tmp_path / "engine")
    layers = json.loads((tmp_path / "engine" / tensorrt.LAYERS).read_text())["layers"]
    count = len(int8_layers(graph))
    assert count == 20 and found.notes[0].startswith(f"{count} of {count} FP8 layers of the graph compute in FP8")
    convolutions = [row["inputs"][0] for row in layers if row["type"] == "correlation"]
    assert sorted(set(convolutions)) == sorted({"FP8", half}) and convolutions.count(half) == 1
    for wrong, sms in (("rtx", "sm80, sm86 cannot"), ("rtx:sm75+sm120", "sm75 cannot")):
        with pytest.raises(BackendError, match=f"{sms} compute in FP8, which begins with sm89"):
            tensorrt.compile(graph, SMALL, Target.parse(wrong), tmp_path / "engine")


def test_bf16_is_computed_in_bf16(tmp_path):
    graph = to_bf16(trip("fashion-resnet18").graph)
    _, _, layers = compiled(graph, tmp_path)
    assert {row["inputs"][0] for row in layers if row["type"] == "correlation"} == {"BFloat16"}
    with pytest.raises(BackendError, match="sm75 cannot compute in BF16, which begins with sm80"):
        compiled(graph, tmp_path, 75)


def test_int8_layers_are_counted_where_a_gpu_has_no_int8(tmp_path):
    graph = pipeline.typed(trip("fashion-resnet18"), Target("rtx", 75))
    found, _, _ = compiled(graph, tmp_path, 75)
    count = len(int8_layers(graph))
    assert f" of {count} INT8 layers" in found.notes[0] and "in floating point" in found.notes[0]


def test_another_process_builds_the_same_bytes(tmp_path):
    """The whole trip from the recipe, under another hash seed."""
    script = (
        "import sys, pathlib, msgspec\n"
        "from toolkit import pipeline; from toolkit.backends.tensorrt import backend as tensorrt\n"
        "from toolkit.recipe import Recipe; from toolkit.types import Target\n"
        "recipe = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=Recipe)\n"
        "graph = pipeline.typed(pipeline.prepare(recipe, proof=False), Target('rtx', 89))\n"
        "tensorrt.compile(graph, recipe.build, Target('rtx', 89), pathlib.Path(sys.argv[2]))\n"
    )
    here = trip("fashion-resnet18")
    _, plan, _ = compiled(pipeline.typed(here, Target("rtx", 89)), tmp_path / "here", 89, here.recipe.build)
    (tmp_path / "there").mkdir()
    (tmp_path / "recipe.json").write_bytes(msgspec.json.encode(plainly("fashion-resnet18")))
    arguments = [sys.executable, "-c", script, str(tmp_path / "recipe.json"), str(tmp_path / "there")]
    subprocess.run(arguments, check=True, env={**os.environ, "PYTHONHASHSEED": "7", "XDG_CACHE_HOME": str(tmp_path)}, timeout=120)
    assert (tmp_path / "there" / tensorrt.PLAN).read_bytes() == plan


@pytest.mark.parametrize("name", ["squeezenet", "resnet50"])
def test_models_that_are_not_ours_build_to_int8(name, tmp_path):
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    graph = to_fp16(int8(loading.load(path, Preprocess()).graph))
    assert lint(graph, "tensorrt") == ()
    found, _, _ = compiled(graph, tmp_path)
    count = len(int8_layers(graph))
    assert count > 20
    assert found.notes[0].startswith(f"{count} of {count} INT8 layers")


def test_what_another_tool_quantized_wrongly_is_refused_by_name(tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"input": np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)}])

        def get_next(self):
            return next(self.batches, None)

    ir.save(trip("fashion-resnet18").graph, tmp_path / "model.onnx")
    quantize_static(tmp_path / "model.onnx", tmp_path / "wrong.onnx", Reader(), quant_format=QuantFormat.QDQ)
    graph = ir.load(tmp_path / "wrong.onnx")
    assert {"asymmetric", "quantized-bias", "per-tensor-weights", "split-fusion"} <= {f.rule for f in lint(graph, "tensorrt")}
    with pytest.raises(GraphError, match=r"refuses node '\S*bias_DequantizeLinear' \(DequantizeLinear\).*Int32") as caught:
        compiled(graph, tmp_path)
    assert "biases in floating point" in caught.value.remedy


def one_node(op, kind=TensorProto.FLOAT, shape=("N", 3, 8, 8), domain="", **attributes):
    node = helper.make_node(op, ["x"], ["y"], name=f"the_{op}", domain=domain, **attributes)
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return ir.from_proto(helper.make_model(helper.make_graph([node], "one", [x], [y]), opset_imports=opsets))


@pytest.mark.parametrize(("op", "domain"), [("Det", ""), ("Unique", ""), ("Frobnicate", "com.example")])
def test_an_unknown_operator_is_named_with_its_node(op, domain, tmp_path):
    with pytest.raises(GraphError, match=rf"refuses node 'the_{op}' \({op}\): the operator is not supported") as caught:
        compiled(one_node(op, domain=domain), tmp_path)
    assert f"Replace {op}" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_quantizer_with_a_zero_point_is_refused_by_name(tmp_path):
    graph = int8(trip("fashion-resnet18").graph)
    pair = next(node for node in graph.graph if node.name == "relu.quantize")
    pair.inputs[2].const_value = ir.tensor(np.array(3, np.int8), name=pair.inputs[2].name)
    with pytest.raises(GraphError, match=r"relu\.(de)?quantize.*[Ss]ymmetric"):
        compiled(graph, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("optimization_level", 5, "same engine"),
        ("timing_cache", True, "times nothing"),
        ("hardware_compatibility", "ampere_plus", "for the SMs"),
        ("version_compatible", True, "lean runtime"),
        ("refit", True, "compiler fails"),
        ("strip_weights", True, "compiler fails"),
        ("threads", 2, "ONNX Runtime"),
        ("spin", True, "ONNX Runtime"),
    ],
)
def test_an_option_that_the_library_lacks_is_an_error(key, value, why, tmp_path):
    build = msgspec.structs.replace(SMALL, **{key: value})
    with pytest.raises(BackendError, match=rf"build\.{key}.*{why}"):
        compiled(one_node("Relu"), tmp_path, build=build)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_build_takes_the_plan_that_was_kept(tmp_path):
    graph = trip("fashion-resnet18").graph
    _, first, _ = compiled(graph, tmp_path / "first")
    (kept,) = (Path(os.environ["XDG_CACHE_HOME"]) / "resnet-deploy" / "plans").iterdir()
    before = kept.stat().st_ino
    found, second, layers = compiled(graph, tmp_path / "second")
    assert second == first and layers and kept.stat().st_ino == before
    compiled(graph, tmp_path / "third", build=Build(batch=(1, 2, 5)))  # another request
    compiled(graph, tmp_path / "fourth", sm=86)
    assert len(list(kept.parent.iterdir())) == 3 and found.settings == {"sm": 89}


def test_a_child_that_dies_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "tensorrt_rtx.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # only the child starts anew and so finds this one
    with pytest.raises(BackendError, match=r"crashed while it built for rtx:sm89 \(exit -6\)"):
        compiled(one_node("Relu"), tmp_path)


def test_a_library_that_loads_in_the_parent_alone_is_an_error_that_says_so(tmp_path, monkeypatch):
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"installed and cannot be loaded .*libcudart"):
        compiled(one_node("Relu"), tmp_path)


def test_several_profiles_and_a_workspace_are_taken(tmp_path):
    build = Build(batch=((1, 1, 4), (5, 8, 16)), workspace_mib=512)
    found, _, layers = compiled(trip("fashion-resnet18").graph, tmp_path, build=build)
    assert found.settings == {"sm": 89, "workspace_mib": 512}
    _, _, single = compiled(trip("fashion-resnet18").graph, tmp_path)
    assert len(layers) == 2 * len(single)  # each profile has its own kernels


def test_a_workspace_that_is_too_small_says_so(tmp_path):
    with pytest.raises(BackendError, match="workspace"):
        compiled(resnet50(), tmp_path, build=Build(batch=(1, 8, 32), workspace_mib=1))


def test_an_unknown_sm_lists_those_that_are_known(tmp_path):
    with pytest.raises(BackendError, match="cannot build for sm53") as caught:
        compiled(one_node("Relu"), tmp_path, sm=53)
    assert "sm75" in caught.value.remedy and "sm120" in caught.value.remedy


def test_shapes_that_no_profile_fits_are_refused(tmp_path):
    with pytest.raises(GraphError, match="fixed batch of 8"):
        compiled(one_node("Relu", shape=(8, 3, 8, 8)), tmp_path)
    compiled(one_node("Relu", shape=(8, 3, 8, 8)), tmp_path, build=Build(batch=(8, 8, 8)))
    with pytest.raises(GraphError, match="dynamic dimension besides the batch"):
        compiled(one_node("Relu", shape=("N", 3, "H", 8)), tmp_path)


def test_without_a_gpu_an_engine_is_not_loaded_and_the_process_lives(tmp_path):
    from toolkit.runtime.device import best

    try:
        best().close()
    except DeviceError:
        pass
    else:
        pytest.skip("a GPU is here")
    folder = tmp_path / "engine"
    manifest = pipeline.build(trip("fashion-resnet18"), Target("rtx", 89), folder)
    assert Manifest.read(folder).settings == manifest.settings == {"sm": 89}
    with pytest.raises(DeviceError, match="driver"):
        tensorrt.open(folder, manifest)
    (folder / manifest.file).write_bytes((folder / manifest.file).read_bytes()[:-1])
    with pytest.raises(Exception, match="not the file that its manifest describes"):
        tensorrt.open(folder, manifest)
