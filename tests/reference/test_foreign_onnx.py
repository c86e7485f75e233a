"""Foreign ONNX files all the way: recipe -> engine -> answers, verdicts and what the build says."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image

import toolkit
from tests.graph.load.files import TensorProto, helper, node, quantized, tensor, write
from toolkit import pipeline
from toolkit.engine.engine import Engine
from toolkit.errors import DataError, GraphError
from toolkit.manifest import Manifest
from toolkit.recipe import Precision, Recipe
from toolkit.types import Target

CPU = Target("cpu")
PLAIN = "scale = 1\nmean = [0, 0, 0]\nstd = [1, 1, 1]"


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def brightness(path: Path, end: list[onnx.NodeProto], columns: int = 1) -> Path:
    """A file that tells bright pictures from dark ones: each column is the mean pixel over 128, less 1, once to twice."""
    nodes = [
        node("GlobalAveragePool", ["image"], ["p0"]),
        node("Flatten", ["p0"], ["f0"]),
        node("Gemm", ["f0", "weight", "bias"], ["scores"], name="fc"),
        *end,
    ]
    more = [
        tensor("weight", np.full((3, columns), 1 / 128 / 3) * np.linspace(1, 2, columns)),
        tensor("bias", -np.linspace(1, 2, columns)),
    ]
    name = end[-1].output[0] if end else "scores"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", columns])
    proto = helper.make_model(helper.make_graph(nodes, "g", [image], [out], more), opset_imports=[helper.make_opsetid("", 18)])
    proto.ir_version = 8
    path.write_bytes(proto.SerializeToString())
    return path


def pictures(root: Path, names: tuple[str, ...] = ("dark", "light"), count: int = 8) -> Path:
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            shade = int(20 + 200 * k / max(1, len(names) - 1) + i)
            Image.new("RGB", (8, 8), (shade, shade, shade)).save(root / name / f"{i}.png")
    return root


def recipe(path: Path, data: Path | None = None, reference: str = "", how: str = PLAIN) -> Recipe:
    accept = f'[accept]\ndata = "{data}"\nmax_top1_drop = 20.0\n' if data else ""
    text = f'name = "r"\n[reference]\nonnx = "{path}"\n{reference}\n[preprocess]\nsize = [8, 8]\n{how}\n{accept}'
    return Recipe.parse(text + f'[calibration]\ndata = "{data}"\n' if data else text)


def built(one: Recipe, folder: Path) -> Manifest:
    return pipeline.build(pipeline.prepare(one), CPU, folder / "engine")


def test_one_sigmoid_column_is_a_binary_classifier(tmp_path: Path) -> None:
    data = pictures(tmp_path / "val")
    path = brightness(tmp_path / "m.onnx", [node("Sigmoid", ["scores"], ["p"])])
    manifest = built(recipe(path, data), tmp_path)
    assert (manifest.outputs_are, manifest.outputs[0].shape) == ("binary-probability", ("N", 1))
    assert manifest.notes[-1] == "reference top-1 100.00% on 16 labeled images"
    verdict = Engine.open(tmp_path / "engine").judge().verdict
    assert verdict is not None
    assert verdict.top1 == (1.0, 1.0)
    with toolkit.load(tmp_path / "engine") as runner:
        dark, light = runner.classify([data / "dark/0.png", data / "light/0.png"])
        values = runner(np.full((1, 3, 8, 8), 20, np.float32))
    assert [p.index for p in dark] == [0, 1]
    assert [p.index for p in light] == [1, 0]
    assert dark[0].probability == pytest.approx(1 - float(values[0, 0]), abs=1e-6)
    assert light[0].probability == pytest.approx(1 / (1 + np.exp(-(220 / 128 - 1))), abs=1e-5)


def test_the_threshold_decides_and_not_the_probability(tmp_path: Path) -> None:
    data = pictures(tmp_path / "val")
    path = brightness(tmp_path / "m.onnx", [node("Sigmoid", ["scores"], ["p"])])
    strict = built(recipe(path, data, "threshold = 0.9"), tmp_path)
    assert strict.threshold == 0.9
    assert strict.notes[-1].startswith("WARNING: reference top-1 50.00%")
    with toolkit.load(tmp_path / "engine") as runner:
        first, second = runner.classify(data / "light/0.png")[0]
    assert (first.index, second.index) == (0, 1)
    assert first.probability < second.probability


def test_probabilities_are_given_as_they_are(tmp_path: Path) -> None:
    path = brightness(tmp_path / "m.onnx", [node("Softmax", ["scores"], ["p"])], columns=3)
    built(recipe(path, pictures(tmp_path / "val", ("a", "b", "c"))), tmp_path)
    with toolkit.load(tmp_path / "engine") as runner:
        values = runner(np.full((1, 3, 8, 8), 20, np.float32))[0]
        found = runner.classify(Image.new("RGB", (8, 8), (20, 20, 20)))[0]
    assert [p.probability for p in found] == pytest.approx(sorted(values.tolist(), reverse=True), abs=1e-6)
    assert sum(p.probability for p in found) == pytest.approx(1)


def test_several_sigmoids_are_labels_that_are_judged_one_by_one(tmp_path: Path) -> None:
    path = brightness(tmp_path / "m.onnx", [node("Sigmoid", ["scores"], ["p"])], columns=3)
    names = tmp_path / "names.txt"
    names.write_text("sun\nsnow\nsand\n")
    data = pictures(tmp_path / "val")
    manifest = built(recipe(path, data / "dark", f'classes = "{names}"'), tmp_path)
    assert manifest.outputs_are == "multilabel-probabilities"
    assert manifest.notes[-1] == "reference top-1 unknown: each image may have several labels"
    verdict = Engine.open(tmp_path / "engine").judge().verdict
    assert verdict is not None
    assert (verdict.labels, verdict.agreement, verdict.word) == (3, 1.0, "agreement only")
    assert "of 3 labels 'sun' agrees least, on 100.00% of 8 images; no image gets any label" in verdict.text
    with toolkit.load(tmp_path / "engine") as runner:
        found = runner.classify(data / "light/0.png")[0]
    assert {p.label for p in found} == {"sun", "snow", "sand"}
    assert sum(p.probability for p in found) > 1.5


@pytest.mark.parametrize(
    ("columns", "names", "words"),
    [
        (3, 2, "answers with 3 columns, and `reference.classes` names 2 classes.*reference.offset = 1"),
        (1, 1, "answers with 1 column, and .* names 1 classes.*name both"),
        (3, 10, "answers with 3 columns, and .* names 10 classes.*names that belong to this model"),
    ],
)
def test_names_and_columns_must_be_as_many(tmp_path: Path, columns: int, names: int, words: str) -> None:
    (tmp_path / "names.txt").write_text("".join(f"n{i}\n" for i in range(names)))
    path = brightness(tmp_path / "m.onnx", [], columns)
    with pytest.raises(DataError, match=words):
        pipeline.prepare(recipe(path, pictures(tmp_path / "val") / "dark", f'classes = "{tmp_path / "names.txt"}"'))


def test_folders_and_columns_must_be_as_many(tmp_path: Path) -> None:
    path = brightness(tmp_path / "m.onnx", [], 3)
    data = pictures(tmp_path / "val")
    with pytest.raises(DataError, match=r"has 2 class folders, and the reference answers 3 classes.*reference\.offset = 1"):
        pipeline.prepare(recipe(path, data))
    trip = pipeline.prepare(recipe(path, data, "offset = 1"))
    assert trip.source.reference.manifest.outputs[0].shape == ("N", 2)
    assert trip.truth is not None
    assert trip.truth.shape == (16, 2)


def test_a_label_that_is_no_class_is_told(tmp_path: Path) -> None:
    path = brightness(tmp_path / "m.onnx", [], 2)
    with pytest.raises(DataError, match=r"has the label 180, and the reference answers the classes 0 to 1.*reference\.classes"):
        pipeline.prepare(recipe(path, pictures(tmp_path / "val", ("0", "180"))))


def test_what_the_recipe_does_not_say_is_told(tmp_path: Path) -> None:
    path = brightness(tmp_path / "m.onnx", [], 2)
    notes = built(recipe(path, pictures(tmp_path / "val"), how="scale = 1"), tmp_path).notes
    assert any("assumed, since nothing says otherwise: color = RGB, mean = [0.485" in note for note in notes)
    assert not any("assumed" in note for note in recipe(path, how=f'{PLAIN}\ncolor = "RGB"').notes)


def test_images_that_do_not_fit_the_first_layer_are_a_warning(tmp_path: Path) -> None:
    """BatchNorm saw pictures of 0 to 255 less their mean; the recipe scales them by 1/255."""
    start = [node("Conv", ["pixels", "k"], ["c0"]), node("BatchNormalization", ["c0", "g0", "b0", "m0", "v0"], ["image"])]
    more = [tensor("k", np.eye(3).reshape(3, 3, 1, 1)), tensor("g0", [1, 1, 1]), tensor("b0", [0, 0, 0])]
    more += [tensor("m0", [120, 120, 120]), tensor("v0", [3600, 3600, 3600])]
    path = write(tmp_path / "m.onnx", start=start, more=more, outputs=[helper.make_tensor_value_info("scores", 1, ["N", 4])])
    data = pictures(tmp_path / "val", tuple("abcd"))
    scaled = pipeline.prepare(recipe(path, data, how="mean = [0, 0, 0]\nstd = [1, 1, 1]"))
    (remark,) = scaled.agreement.remarks
    assert remark.startswith("WARNING: the images do not fit the first layer: after 'c0' values spread 0.00")
    fitting = pictures(tmp_path / "wide", tuple("abcd"))
    for k, name in enumerate("abcd"):
        for i in range(3):
            noise = np.random.default_rng(9 * k + i).normal(120, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(fitting / name / f"{i}.png")
    assert pipeline.prepare(recipe(path, fitting)).agreement.remarks == ()


def test_a_quantized_file_is_built_as_it_is_and_not_again(tmp_path: Path) -> None:
    path = quantized(tmp_path, "QDQ")
    data = pictures(tmp_path / "val", tuple("abcd"))
    manifest = built(recipe(path, data), tmp_path)
    assert manifest.precision == "int8"
    assert any("quantized already" in note for note in manifest.notes)
    twice = msgspec.structs.replace(recipe(path, data), precision=Precision(int8=True))
    with pytest.raises(GraphError, match="would be quantized twice"):
        pipeline.prepare(twice)


@pytest.mark.parametrize("kind", ["float16", "uint8"])
def test_ends_of_other_types_become_float32(tmp_path: Path, kind: str) -> None:
    data = pictures(tmp_path / "val", tuple("abcd"))
    out = [helper.make_tensor_value_info("scores", TensorProto.FLOAT16 if kind == "float16" else TensorProto.FLOAT, ["N", 4])]
    if kind == "float16":
        path = write(tmp_path / "m.onnx", dtype=np.float16, kind=TensorProto.FLOAT16, outputs=out)
    else:
        start = [node("Cast", ["pixels"], ["image"], to=TensorProto.FLOAT)]
        path = write(tmp_path / "m.onnx", start=start, kind=TensorProto.UINT8, outputs=out)
    manifest = built(recipe(path, data), tmp_path)
    assert (manifest.inputs[0].dtype, manifest.outputs[0].dtype) == ("float32", "float32")
    with toolkit.load(tmp_path / "engine") as runner:
        assert len(runner.classify(data / "a/0.png")[0]) == 4
