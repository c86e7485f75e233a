"""Whether a file normalizes its input itself, which pixels it expects then, and what becomes of a recipe for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tests.graph.load.files import TensorProto, helper, node, plain, tensor, write
from toolkit import pipeline
from toolkit.cli.main import app
from toolkit.draft import draft
from toolkit.graph.load.normal import normalization_of
from toolkit.graph.run import graph_runner
from toolkit.recipe import Recipe
from toolkit.reference.normal import fit_normalization

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
WHOLE, SHARE = 1.0, 1 / 255


def channel(values: Any, name: str) -> Any:
    return tensor(name, np.asarray(values).reshape(1, -1, 1, 1))


def batchnorm(mean: Any, deviation: Any) -> tuple[list[Any], list[Any]]:
    values = {"g": np.ones(3), "o": np.zeros(3), "m": mean, "v": np.square(deviation)}
    one = node("BatchNormalization", ["pixels", *(f"bn.{key}" for key in values)], ["image"], name="bn", epsilon=0.0)
    return [one], [tensor(f"bn.{key}", value) for key, value in values.items()]


FORMS: dict[str, tuple[list[Any], list[Any], float | None]] = {
    "ImageNet's, of 0 to 1": (
        [node("Sub", ["pixels", "mid"], ["x"], name="sub"), node("Div", ["x", "s"], ["image"], name="div")],
        [channel(MEAN, "mid"), channel(STD, "s")],
        SHARE,
    ),
    "ImageNet's, of 0 to 255, by a product and a sum": (
        [node("Mul", ["pixels", "f"], ["x"]), node("Add", ["x", "o"], ["image"])],
        [channel(1 / 255 / STD, "f"), channel(-MEAN / STD, "o")],
        WHOLE,
    ),
    "a division by 255 alone": ([node("Div", ["pixels", "s"], ["image"])], [tensor("s", 255.0)], WHOLE),
    "-1 to 1 of 0 to 255": (
        [node("Div", ["pixels", "s"], ["x"]), node("Sub", ["x", "one"], ["image"])],
        [tensor("s", 127.5), tensor("one", 1.0)],
        WHOLE,
    ),
    "Caffe's means, in the other order of colors": (
        [
            node("Gather", ["pixels", "order"], ["x"], axis=1),
            node("Sub", ["x", "mid"], ["image"]),
        ],
        [tensor("order", [2, 1, 0], np.int64), channel([103.939, 116.779, 123.68], "mid")],
        WHOLE,
    ),
    "through a cast, its constants behind nodes": (
        [
            node("Constant", [], ["k"], value=tensor("k", MEAN)),
            node("Unsqueeze", ["k", "axes"], ["mid"]),
            node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
            node("Sub", ["x", "mid"], ["image"]),
        ],
        [tensor("axes", [1, 2], np.int64)],
        SHARE,
    ),
    "BatchNorm that saw 0 to 255": (*batchnorm(255 * MEAN, 255 * STD), WHOLE),
    "BatchNorm that saw 0 to 1": (*batchnorm(MEAN, STD), SHARE),
    "BatchNorm that saw normalized images": (*batchnorm(np.zeros(3) + 0.1, np.ones(3)), None),
    "a channel at a time, by Split": (
        [
            node("Split", ["pixels"], ["x0", "x1", "x2"], axis=1, num_outputs=3),
            *(node("Sub", [f"x{i}", f"mid{i}"], [f"y{i}"]) for i in range(3)),
            *(node("Div", [f"y{i}", f"s{i}"], [f"z{i}"]) for i in range(3)),
            node("Concat", ["z0", "z1", "z2"], ["image"], axis=1),
        ],
        [tensor(f"{key}{i}", values[i]) for key, values in (("mid", MEAN), ("s", STD)) for i in range(3)],
        SHARE,
    ),
    "a channel at a time, by Gather, in the other order": (
        [
            *(node("Gather", ["pixels", f"at{i}"], [f"x{i}"], axis=1) for i in range(3)),
            *(node("Sub", [f"x{i}", f"mid{i}"], [f"y{i}"]) for i in range(3)),
            *(node("Unsqueeze", [f"y{i}", "axes"], [f"z{i}"]) for i in range(3)),
            node("Concat", ["z2", "z1", "z0"], ["image"], axis=1),
        ],
        [
            tensor("axes", [1], np.int64),
            *(tensor(f"mid{i}", 255 * MEAN[i]) for i in range(3)),
            *(tensor(f"at{i}", i, np.int64) for i in range(3)),
        ],
        WHOLE,
    ),
    "a channel of which goes another way": (
        [
            node("Split", ["pixels"], ["x0", "x1", "x2"], axis=1, num_outputs=3),
            *(node("Sub", [f"x{i}", f"mid{i}"], [f"y{i}"]) for i in range(3)),
            node("Sin", ["y0"], ["z0"]),
            node("Concat", ["z0", "y1", "y2"], ["image"], axis=1),
        ],
        [tensor(f"mid{i}", MEAN[i]) for i in range(3)],
        None,
    ),
    "behind a Resize": (
        [
            node("Resize", ["pixels", "", "", "sizes"], ["x"], mode="linear"),
            node("Div", ["x", "s"], ["y"]),
            node("Sub", ["y", "mid"], ["image"]),
        ],
        [tensor("sizes", [1, 3, 8, 8], np.int64), tensor("s", 255.0), channel(MEAN, "mid")],
        WHOLE,
    ),
    "within limits, of 0 to 255": (
        [node("Clip", ["pixels", "none", "most"], ["x"]), node("Sub", ["x", "mid"], ["y"]), node("Div", ["y", "s"], ["image"])],
        [tensor("none", 0.0), tensor("most", 255.0), channel(255 * MEAN, "mid"), channel(255 * STD, "s")],
        WHOLE,
    ),
    "a mean picture": (
        [node("Sub", ["pixels", "mid"], ["image"])],
        [tensor("mid", np.linspace(90, 140, 3 * 64 * 64).reshape(1, 3, 64, 64))],
        WHOLE,
    ),
    "a convolution of each channel": (
        [node("Conv", ["pixels", "cw", "cb"], ["image"], group=3)],
        [tensor("cw", (1 / 255 / STD).reshape(3, 1, 1, 1)), tensor("cb", -MEAN / STD)],
        WHOLE,
    ),
    "a convolution that turns the colors": (
        [node("Conv", ["pixels", "cw", "cb"], ["image"])],
        [tensor("cw", np.diag(1 / STD)[:, ::-1].reshape(3, 3, 1, 1)), tensor("cb", -MEAN / STD)],
        SHARE,
    ),
    "a convolution that mixes colors": (
        [node("Conv", ["pixels", "cw", "cb"], ["image"])],
        [tensor("cw", np.full((3, 3, 1, 1), 0.3)), tensor("cb", -MEAN / STD)],
        None,
    ),
    "Inception's, from ImageNet's": (
        [node("Mul", ["pixels", "f"], ["x"]), node("Add", ["x", "o"], ["image"])],
        [channel(STD / 0.5, "f"), channel((MEAN - 0.5) / 0.5, "o")],
        None,
    ),
    "a doubling": ([node("Mul", ["pixels", "f"], ["image"])], [tensor("f", 2.0)], None),
    "nothing": ([node("Identity", ["pixels"], ["image"])], [], None),
}


def made(path: Path, form: str) -> Path:
    start, more, _ = FORMS[form]
    return write(path, start=start, more=more, outputs=[helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])])


@pytest.mark.parametrize("form", FORMS)
def test_the_pixels_that_a_file_expects(tmp_path: Path, form: str) -> None:
    found = normalization_of(made(tmp_path / "m.onnx", form))
    assert (found and found.scale) == FORMS[form][2]


COLORS = {
    "ImageNet's, of 0 to 1": "RGB",
    "Caffe's means, in the other order of colors": "RGB",  # BGR from the Gather on
    "a channel at a time, by Split": "RGB",
    "a channel at a time, by Gather, in the other order": "RGB",
    "a convolution that turns the colors": "BGR",
    "-1 to 1 of 0 to 255": None,
}


def test_the_pixels_that_a_file_expects_where_constants_are_inputs_beside_the_image(tmp_path: Path) -> None:
    """As tf2onnx leaves Keras' mean and variance of EfficientNet, four dimensions each: the pictures were normalized twice."""
    start, more, scale = FORMS["ImageNet's, of 0 to 255, by a product and a sum"]
    left = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 1, 1]) for name in ("mean", "variance")]
    path = write(tmp_path / "m.onnx", start=start, more=more, inputs=left)
    found = normalization_of(path)
    assert found is not None and found.scale == scale


@pytest.mark.parametrize("form", COLORS)
def test_the_order_of_colors_is_read_off_means_that_are_imagenets(tmp_path: Path, form: str) -> None:
    found = normalization_of(made(tmp_path / "m.onnx", form))
    assert found is not None and found.color == COLORS[form]


def test_colors_that_are_indexed_are_turned(tmp_path: Path) -> None:
    """As torch.export writes `x[:, [2, 1, 0]]`: by a GatherND of the first axis, between two Transposes."""
    start = [
        node("Transpose", ["pixels"], ["t"], perm=[1, 0, 2, 3]),
        node("GatherND", ["t", "order"], ["u"], batch_dims=0),
        node("Transpose", ["u"], ["x"], perm=[1, 0, 2, 3]),
        node("Sub", ["x", "mid"], ["image"]),
    ]
    path = write(tmp_path / "m.onnx", start=start, more=[tensor("order", [[2], [1], [0]], np.int64), channel(255 * MEAN, "mid")])
    found = normalization_of(path)
    assert found is not None and (found.scale, found.color) == (1.0, "BGR")


def test_a_slice_of_several_axes_turns_the_one_that_it_steps_back_on(tmp_path: Path) -> None:
    """As TensorFlow writes `x[..., ::-1]`: every image of the batch, and the colors from the last on. Caffe's means follow."""
    flip = node("Slice", ["pixels", "from", "to", "axes", "steps"], ["x"])
    values = {"from": [0, -1], "to": [9999, -9999], "axes": [0, 1], "steps": [1, -1]}
    more = [*(tensor(name, value, np.int64) for name, value in values.items()), channel([103.939, 116.779, 123.68], "mid")]
    path = write(tmp_path / "m.onnx", start=[flip, node("Sub", ["x", "mid"], ["image"])], more=more)
    found = normalization_of(path)
    assert found is not None and (found.scale, found.color) == (1.0, "RGB")


@pytest.mark.parametrize("turn", ["channels", "width"])
def test_a_file_that_turns_its_colors_before_it_subtracts_means_takes_bgr(tmp_path: Path, turn: str) -> None:
    """ImageNet's means behind a flip of the channels are those of BGR; a mirrored picture keeps its colors."""
    flip = node("Slice", ["pixels", "from", "to", "axis", "back"], ["x"])
    more = [tensor(name, [at], np.int64) for name, at in (("from", -1), ("to", -99), ("back", -1))]
    more += [tensor("axis", [1 if turn == "channels" else 3], np.int64), channel(255 * MEAN, "mid")]
    path = write(tmp_path / "m.onnx", start=[flip, node("Sub", ["x", "mid"], ["image"])], more=more)
    recipe, told = fit_normalization(Recipe.of(path, size=(8, 8)))
    want = "BGR" if turn == "channels" else "RGB"
    assert recipe.preprocess.color == want and recipe.assumed == ()
    assert any("in the order of BGR" in line for line in told) == (want == "BGR")
    assert draft(path).recipe.preprocess.color == want
    kept, (_, warning) = fit_normalization(Recipe.of(path, size=(8, 8), color="BGR" if want == "RGB" else "RGB"))
    assert kept.preprocess.color != want and f"Set color = {want}" in warning


def test_ultralytics_classifiers_are_given_plain_pixels(tmp_path: Path) -> None:
    """They say who made them, and are trained on pixels of 0 to 1."""
    path = made(tmp_path / "m.onnx", "nothing")
    proto = onnx.load(path)
    helper.set_model_props(proto, {"author": "Ultralytics", "task": "classify"})
    path.write_bytes(proto.SerializeToString())
    recipe, told = fit_normalization(Recipe.of(path, size=(8, 8)))
    how = recipe.preprocess
    assert (how.scale, how.mean, how.std, recipe.assumed) == (1 / 255, (0,) * 3, (1,) * 3, ())
    assert told[0].startswith("the file is Ultralytics', whose classifiers are trained on pixels that nothing normalizes")
    assert draft(path).recipe.preprocess == how


def test_means_of_a_recipe_in_the_other_order_of_colors_are_warned_of(tmp_path: Path) -> None:
    path = made(tmp_path / "m.onnx", "nothing")
    caffe = {"size": (8, 8), "scale": 1.0, "mean": [103.939, 116.779, 123.68], "std": [1.0] * 3}
    _, told = fit_normalization(Recipe.of(path, **caffe))
    (said,) = told
    assert said.startswith("WARNING: `mean` is ImageNet's in the order of BGR, and `color` is RGB. Set color = BGR")
    assert fit_normalization(Recipe.of(path, **caffe, color="BGR"))[1] == ()


@pytest.mark.parametrize(
    "form", ["ImageNet's, of 0 to 1", "Caffe's means, in the other order of colors", "a channel at a time, by Split"]
)
def test_a_recipe_that_says_nothing_gives_it_those_pixels(tmp_path: Path, form: str) -> None:
    """And the engine's graph, given them, answers as the file does; a recipe that is drafted says so in its keys."""
    path, scale = made(tmp_path / "m.onnx", form), FORMS[form][2]
    (tmp_path / "r.toml").write_text('name = "r"\n[reference]\nonnx = "m.onnx"\n[preprocess]\nsize = [8, 8]\n')
    trip = pipeline.prepare(Recipe.load(tmp_path / "r.toml"))
    how = trip.recipe.preprocess
    assert (how.scale, how.mean, how.std) == (scale, (0, 0, 0), (1, 1, 1))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.float32) * np.float32(scale)
    np.testing.assert_allclose(graph_runner(trip.graph, 1)(pixels), plain(path, pixels), rtol=1e-4, atol=1e-3)
    assert any(re.match(r"the file normalizes its input itself \(Sub .*\): it is given pixels of 0 to", r) for r in trip.remarks)
    assert not any("mean" in remark for remark in trip.recipe.remarks)
    drafted = draft(path)
    assert drafted.recipe.preprocess == how and drafted.recipe.assumed == ()
    assert any("normalizes its input itself" in line for line in drafted.told)


def test_a_recipe_that_normalizes_as_well_is_warned_and_obeyed(tmp_path: Path) -> None:
    path = made(tmp_path / "m.onnx", "ImageNet's, of 0 to 255, by a product and a sum")
    said = Recipe.of(path, size=(8, 8), mean=MEAN.tolist(), std=STD.tolist(), color="RGB")
    kept, (warning,) = fit_normalization(said)
    assert kept == said
    assert warning.startswith("WARNING: the file normalizes its input itself (Mul")
    assert "Set scale = 1, mean = [0, 0, 0], std = [1, 1, 1]" in warning
    right = Recipe.of(path, size=(8, 8), color="RGB", scale=1.0, mean=[0.0] * 3, std=[1.0] * 3)
    assert fit_normalization(right) == (right, ())
    dark = Recipe.of(path, size=(8, 8), mean=[0.0] * 3, std=[1.0] * 3, scale=1 / 255)
    assert len(fit_normalization(dark)[1]) == 1


def test_what_was_assumed_follows_the_keys_of_a_drafted_recipe(tmp_path: Path) -> None:
    """`init` writes no note of it; what is said afterwards is assumed no longer, and what a person said stays said."""
    path = made(tmp_path / "m.onnx", "nothing")
    toml = tmp_path / "m.toml"
    done = CliRunner().invoke(app, ["init", str(path), "-o", str(toml), "--set", f"std={STD.tolist()}"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "assumed" not in toml.read_text()
    recipe = Recipe.load(toml)
    said = "assumed, since nothing says otherwise: color = RGB, scale = 0.00392157, mean = [0.485, 0.456, 0.406]"
    assert recipe.remarks == (said,)
    toml.write_text(toml.read_text().replace("[preprocess]\n", "[preprocess]\nmean = [0.5, 0.5, 0.5]\n"))
    (remark,) = Recipe.load(toml).remarks
    assert "mean" not in remark and "scale" in remark
    old = toml.read_text().replace("[reference]", 'notes = ["assumed, the file does not tell: mean = [9]", "kept"]\n[reference]')
    assert Recipe.parse(old).remarks == ("kept", remark)
