"""Preprocessing inside: every form answers as the network does whose pictures are preprocessed before it, borders included."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.graph.conftest import Observed
from tests.graph.load.files import node, tensor, write
from tests.graph.networks import FASHION, fashion_graph, run
from toolkit.graph.export import export
from toolkit.graph.fp8 import first_layers
from toolkit.graph.load import load
from toolkit.graph.pixels import PREFIX, Form, how_taken, take_pixels
from toolkit.graph.qdq import quantize
from toolkit.graph.run import graph_runner
from toolkit.images.picture import normalized
from toolkit.recipe import Calibration, Precision, Preprocess, Reference
from toolkit.reference.resnet import ResNet
from toolkit.types import Array

IMAGENET = Preprocess(size=(64, 48))
CIFAR = Preprocess(size=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CAFFE = Preprocess(size=(8, 12), color="BGR", scale=1.0, mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))
KERAS = Preprocess(size=(8, 12), scale=1 / 127.5, mean=(1.0,) * 3, std=(1.0,) * 3, layout="NHWC")
FORMS: tuple[Form, ...] = get_args(Form)


def resnet(stem: Any, how: Preprocess) -> ir.Model:
    torch.manual_seed(0)
    return export(ResNet("resnet18", classes=7, width=0.25, stem=stem), how)


def foreign(folder: Path, how: Preprocess, pads: bool = True) -> ir.Model:
    """A file of another tool: [N, 3, H, W], or [N, H, W, 3] and a Transpose of its own."""
    start, shape = [], ["N", *how.input_shape]
    if how.layout == "NHWC":
        start = [node("Transpose", ["pixels"], ["image"], perm=[0, 3, 1, 2])]
    path = write(folder / "x.onnx", start=start, shape=shape)
    model = load(path, how, Reference(onnx=str(path))).graph
    if not pads:
        next(n for n in model.graph if n.op_type == "Conv").attributes.pop("pads")
        next(n for n in model.graph if n.op_type == "Conv").outputs[0].shape = None
    return model


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ir.Model, Preprocess]]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "imagenet stem": (resnet("imagenet", IMAGENET), IMAGENET),
        "cifar stem": (resnet("cifar", CIFAR), CIFAR),
        "gray": (fashion_graph("resnet18"), FASHION),
        "caffe": (foreign(folder, CAFFE), CAFFE),
        "caffe without padding": (foreign(folder, CAFFE, pads=False), CAFFE),
        "keras": (foreign(folder, KERAS), KERAS),
    }


NAMES = ("imagenet stem", "cifar stem", "gray", "caffe", "caffe without padding", "keras")


def pixels_for(how: Preprocess, count: int = 6) -> Array:
    """Noise, and pictures of one level throughout: at 0 and 255 a wrong border shows most."""
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (count, *how.pixel_shape), np.uint8)
    pixels[0], pixels[1] = 0, 255
    return pixels


def outside(graph: ir.Model, how: Preprocess, pixels: Array) -> Array:
    return run(graph, np.stack([normalized(picture, how) for picture in pixels]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_it_answers_as_preprocessing_outside_does(
    networks: dict[str, tuple[ir.Model, Preprocess]], name: str, form: Form
) -> None:
    graph, how = networks[name]
    pixels = pixels_for(how)
    want = outside(graph, how, pixels)
    found = run(take_pixels(graph, how, form), pixels)
    # rounding the mean of a gray picture to a whole level is half a level at its border at most; all else is float rounding
    share = 1e-3 if form == "quantized" else 1e-5
    assert np.abs(found - want).max() <= share * np.abs(want).max()
    if form == "plain":
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-6 * float(np.abs(want).max()))


def test_the_border_would_show(networks: dict[str, tuple[ir.Model, Preprocess]]) -> None:
    """The mean in the bias alone, as is often done, is far off at a zero padding: the bars above tell it."""
    graph, how = networks["caffe"]
    wrong = take_pixels(graph, how, "folded")
    subtract = next(n for n in wrong.graph if n.op_type == "Sub")
    stem = next(n for n in wrong.graph if n.op_type == "Conv")
    weight, bias = stem.inputs[1].const_value.numpy(), subtract.inputs[1].const_value.numpy()
    subtract.outputs[0].replace_all_uses_with(subtract.inputs[0])
    shift = ir.tensor(-np.einsum("ochw,c->o", weight, bias.ravel()).astype(np.float32), name="shift")
    value = ir.Value(name="shift", const_value=shift, type=ir.TensorType(shift.dtype), shape=shift.shape)
    wrong.graph.register_initializer(value)
    stem.resize_inputs(3)
    stem.replace_input_with(2, value)
    pixels = pixels_for(how)
    want = outside(graph, how, pixels)
    assert np.abs(run(wrong, pixels) - want).max() > 0.02 * np.abs(want).max()


def test_forms_are_what_they_say(networks: dict[str, tuple[ir.Model, Preprocess]]) -> None:
    def own(name: str, form: Form) -> list[str]:
        graph, how = networks[name]
        return [n.op_type for n in take_pixels(graph, how, form).graph if (n.name or "").startswith(f"{PREFIX}.")]

    assert own("imagenet stem", "plain") == ["Cast", "Transpose", "Mul", "Sub", "Div"]
    assert own("imagenet stem", "folded") == ["Transpose", "Cast", "Sub"]
    assert own("imagenet stem", "quantized") == ["Transpose", "Pad", "DequantizeLinear"]
    assert own("gray", "quantized") == ["Transpose", "DequantizeLinear"]  # one mean: padding with the zero point is near enough
    assert own("caffe", "plain") == ["Cast", "Transpose", "Gather", "Mul", "Sub"]
    assert own("caffe without padding", "folded") == ["Transpose", "Cast"]
    assert own("caffe without padding", "quantized") == ["Transpose", "DequantizeLinear"]
    assert own("keras", "plain") == ["Cast", "Mul", "Sub"]
    assert own("keras", "folded") == ["Transpose", "Cast", "Sub"]  # in place of the file's own Transpose


def test_the_given_graph_stays_as_it_is(networks: dict[str, tuple[ir.Model, Preprocess]]) -> None:
    graph, how = networks["imagenet stem"]
    before = ir.to_proto(graph).SerializeToString()
    taken = take_pixels(graph, how, "quantized")
    assert ir.to_proto(graph).SerializeToString() == before
    assert [value.name for value in taken.graph.outputs] == [value.name for value in graph.graph.outputs]
    names = {n.name for n in taken.graph}
    assert {n.name for n in graph.graph} <= names


@pytest.mark.parametrize("name", NAMES)
def test_int8_on_the_cpu_reads_the_pixels_and_is_no_worse(
    networks: dict[str, tuple[ir.Model, Preprocess]], name: str, tmp_path: Path
) -> None:
    """ONNX Runtime fuses the first convolution into one that reads uint8: nothing quantizes, and no float picture is left."""
    import onnx
    import onnxruntime

    graph, how = networks[name]
    pixels = pixels_for(how, 16)
    want = outside(graph, how, pixels)
    images = np.stack([normalized(picture, how) for picture in pixels])
    settings = Precision(int8=True, weights="absmax"), Calibration(method="minmax")
    before = quantize(graph, Observed(graph, images), *settings)
    plain = take_pixels(graph, how, "quantized")
    taken = quantize(plain, Observed(plain, pixels), *settings)
    noise = [float(((answers - want) ** 2).sum()) for answers in (run(before, images), run(taken, pixels))]
    assert noise[1] <= 1.6 * noise[0]  # 2 dB: which way other roundings fall is chance
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(ir.to_proto(taken).SerializeToString(), options, providers=["CPUExecutionProvider"])
    fused = onnx.load(tmp_path / "optimized.onnx").graph
    kinds = [n.op_type for n in fused.node]
    assert not {"QuantizeLinear", "DequantizeLinear", "Cast"} & set(kinds[: kinds.index("QLinearConv")])


def test_a_first_layer_that_is_kept_gets_floats(networks: dict[str, tuple[ir.Model, Preprocess]]) -> None:
    graph, how = networks["gray"]
    kept = take_pixels(graph, how, "quantized", keep=("conv1",))
    assert "DequantizeLinear" not in {n.op_type for n in kept.graph}
    assert "before the network" in how_taken(kept)
    pixels = pixels_for(how)
    want = outside(graph, how, pixels)
    assert np.abs(run(kept, pixels) - want).max() <= 1e-5 * np.abs(want).max()


def test_a_network_that_reads_its_image_twice_gets_it_preprocessed(tmp_path: Path) -> None:
    start = [node("Mul", ["pixels", "two"], ["double"]), node("Add", ["double", "pixels"], ["image"])]
    path = write(tmp_path / "x.onnx", start=start, shape=["N", *CAFFE.input_shape], more=[tensor("two", 2.0)])
    graph = load(path, CAFFE, Reference(onnx=str(path))).graph
    pixels = pixels_for(CAFFE)
    want = outside(graph, CAFFE, pixels)
    for form in FORMS:
        taken = take_pixels(graph, CAFFE, form)
        assert taken.graph.inputs[0].name not in {value.name for value in graph.graph.inputs}
        assert np.abs(run(taken, pixels) - want).max() <= 1e-5 * np.abs(want).max()


def test_words_for_a_note(networks: dict[str, tuple[ir.Model, Preprocess]]) -> None:
    graph, how = networks["imagenet stem"]
    assert how_taken(graph) == ""
    head = "takes pixels, uint8 [N, 64, 48, 3]"
    assert how_taken(take_pixels(graph, how)) == f"{head}: preprocessing stands before the network, in float32"
    assert "folded into conv1; the mean is subtracted before it" in how_taken(take_pixels(graph, how, "folded"))
    assert "conv1 reads them in INT8" in how_taken(take_pixels(graph, how, "quantized"))


def test_fp8_still_leaves_out_the_layer_that_reads_the_image(networks: dict[str, tuple[ir.Model, Preprocess]]) -> None:
    graph, how = networks["imagenet stem"]
    assert first_layers(take_pixels(graph, how)) == first_layers(graph) == ("conv1",)


def test_any_batch(networks: dict[str, tuple[ir.Model, Preprocess]]) -> None:
    graph, how = networks["cifar stem"]
    runner = graph_runner(take_pixels(graph, how, "quantized"))
    pixels = pixels_for(how, 5)
    np.testing.assert_allclose(runner(pixels)[:1], runner(pixels[:1]), atol=1e-4)
