"""`build` straight from a model, and `init`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from typer.testing import CliRunner

import toolkit
from toolkit.api import recipes_of
from toolkit.cli.app import app
from toolkit.cli.build import merged, pairs
from toolkit.draft import draft
from toolkit.errors import RecipeError, ToolkitError
from toolkit.recipe import Recipe, Reference
from toolkit.reference.weights import load_reference


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean brightness of each channel, NHWC."""
    folder = tmp_path_factory.mktemp("model")
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "weights"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 8, 6, 3])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    values = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.eye(3, dtype=np.float32), "weights"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "tiny.onnx")
    return folder / "tiny.onnx"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    module = load_reference(Reference(arch="resnet18", weights="random:1", width=0.125), channels=1, classes=5)
    save_file(dict(module.state_dict()), path)
    return path


def test_a_model_is_built_at_once_and_its_recipe_lies_beside(model: Path, tmp_path: Path) -> None:
    shown = run("build", model, "--precision", "fp32", "-o", tmp_path, "--set", "threads=1")
    recipe = Recipe.load(tmp_path / "tiny-fp32.toml")
    assert "tiny-fp32.toml" in shown
    assert (recipe.preprocess.layout, recipe.preprocess.size) == ("NHWC", (8, 6))
    assert recipe.reference.onnx is not None and Path(recipe.reference.onnx).resolve() == model.resolve()
    with toolkit.load(tmp_path / "tiny-fp32") as runner:
        assert runner(np.ones((2, 8, 6, 3), np.float32)).shape == (2, 3)
        assert any(note.startswith("assumed, since nothing says otherwise: ") for note in runner.manifest.notes)


@pytest.mark.parametrize("short", [(), ("--precision", "fp16")])
def test_keys_of_precision_stand_beside_its_short_word(model: Path, tmp_path: Path, short: tuple[str, ...]) -> None:
    keys = ("precision.compute=fp16", "precision.weights=mse", "precision.rounding=nearest")
    run("build", model, *short, "-o", tmp_path, *(word for key in keys for word in ("--set", key)))
    precision = Recipe.load(tmp_path / "tiny-fp16.toml").precision
    assert (precision.compute, precision.weights, precision.rounding) == ("fp16", "mse", "nearest")
    assert recipes_of(str(model), {"precision": {"compute": "fp16", "weights": "mse"}})[0].precision.weights == "mse"
    assert [found.name for found in recipes_of(str(model), {"precision": "fp32,fp16"})] == ["tiny-fp32", "tiny-fp16"]


def test_weights_tell_their_architecture_and_channels(weights: Path) -> None:
    found = draft(str(weights), "fp16")
    assert (found.recipe.reference.arch, found.recipe.preprocess.color) == ("resnet18", "L")
    assert found.recipe.preprocess.mean == (0.449,) and "5 classes" in " ".join(found.told)
    assert "size" in found.recipe.remarks[0] and found.recipe.precision.compute == "fp16"
    assert draft(str(weights), "int8", target="rtx:sm89", calibration="x").recipe.precision.compute == "fp16"
    eight = draft(str(weights), "fp8", target="rtx:sm89", calibration="x").recipe
    assert eight.name.endswith("-fp8") and eight.precision.fp8 and eight.precision.compute == "fp16"
    with pytest.raises(RecipeError, match=r"fp7.*fp32, fp16, int8"):
        draft(str(weights), "fp7")


def test_init_writes_a_recipe_that_is_read_also_with_every_comment_taken_up(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    shown = run("init", model, "-o", path)
    assert "opset 18" in shown and "input image float32 [?, 8, 6, 3]" in shown
    text = path.read_text()
    assert "opset 18" in text and Recipe.load(path).preprocess.layout == "NHWC"
    head, _, rest = text.partition("\n\n")
    lines = [line.removeprefix("# ") if line.startswith("# ") else line for line in rest.splitlines()]
    full = Recipe.parse("\n".join(lines).replace("resize = 256", "resize = 8").replace('data = "images/train"', 'data = "x"'))
    assert full.precision.int8 and full.accept.data is not None and head.startswith("# A first recipe for tiny.onnx")
    with pytest.raises(RecipeError, match=r"exists already.*--force"):
        CliRunner().invoke(app, ["init", str(model), "-o", str(path)], catch_exceptions=False)
    run("init", model, "-o", path, "--force", "--precision", "fp16")
    assert Recipe.load(path).precision.compute == "fp16"


def test_of_several_the_good_ones_are_built_and_a_table_tells(model: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    plain = f'[reference]\nonnx = "{model}"\n[preprocess]\nsize = [8, 6]\nlayout = "NHWC"\n[build]\nthreads = 1\n'
    good.write_text(f'name = "good"\n{plain}')
    bad.write_text(f'name = "bad"\n{plain}refit = true\n')
    done = CliRunner().invoke(app, ["build", str(bad), str(good), "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, ToolkitError) and "1 of 2 engines were not built" in str(done.exception)
    assert "outcome" in done.output and "built: fp32" in done.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("none.onnx", "none.pth"):
        done = CliRunner().invoke(app, ["build", str(tmp_path / name), "-o", str(tmp_path / "out")])
        assert isinstance(done.exception, ToolkitError) and "there is no file" in str(done.exception)


def weighted(model: Path, folder: Path, weight: float) -> Path:
    """The same network with other weights, under the same file name in another folder."""
    proto = onnx.load(str(model))
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.eye(3, dtype=np.float32) * np.float32(weight), "weights"))
    folder.mkdir()
    onnx.save(proto, folder / model.name)
    return folder / model.name


def test_another_models_engine_of_the_same_name_is_not_replaced(model: Path, tmp_path: Path) -> None:
    """Two files called alike in two folders. The same file built again, moved or with new weights, replaces its own engine."""
    options = ("--precision", "fp32", "-o", tmp_path / "out", "--set", "threads=1")
    one, two = weighted(model, tmp_path / "one", 2), weighted(model, tmp_path / "two", 3)
    run("build", one, *options)
    seal = toolkit.Engine.open(tmp_path / "out/tiny-fp32").manifest.seal
    again = f"is the engine of another model, {one}: it is not replaced. Give this one a name"
    with pytest.raises(ToolkitError, match=re.escape(again)):
        run("build", two, *options)
    assert toolkit.Engine.open(tmp_path / "out/tiny-fp32").manifest.seal == seal
    run("build", two, *options, "--set", "name=other")
    assert toolkit.Engine.open(tmp_path / "out/other").name == "other"
    (tmp_path / "moved").mkdir()
    moved = one.rename(tmp_path / "moved" / one.name)
    assert "another model" not in run("build", moved, *options)
    moved.write_bytes(two.read_bytes())
    assert "another model" not in run("build", moved, *options)


def test_a_recipe_that_a_person_named_replaces_another_models_engine_with_a_word(model: Path, tmp_path: Path) -> None:
    for folder, weight in (("one", 2), ("two", 3)):
        path = weighted(model, tmp_path / folder, weight)
        recipe = Recipe.of(path, name="mine", size=(8, 6), layout="NHWC", threads=1)
        (engine,) = toolkit.build(recipe, out=tmp_path / "out")
    assert "it took the place of the engine of another model, tiny.onnx" in engine.manifest.notes


def test_keys_are_toml_or_text() -> None:
    assert pairs(["size=[1, 2]", "color=L", "int8=true", "classes = names.txt"]) == {
        "size": [1, 2], "color": "L", "int8": True, "classes": "names.txt",
    }  # fmt: skip
    with pytest.raises(RecipeError, match="not KEY=VALUE"):
        pairs(["size"])


def test_the_version() -> None:
    assert run("--version") == f"resnet-deploy {toolkit.__version__}\n"


def test_keys_of_tables_stand_beside_flags() -> None:
    given = pairs(["accept.min_agreement=0.99", "accept={max_top1_drop=1.0}", "reference.output=40", "input=7"])
    assert given == {
        "accept": {"min_agreement": 0.99, "max_top1_drop": 1.0},
        "reference": {"output": "40"},
        "input": "7",  # tensors of torch's are called by numbers
    }
    both = merged({"accept": "val", "arch": None}, given)
    assert both["accept"] == {"data": "val", "min_agreement": 0.99, "max_top1_drop": 1.0}


def test_a_build_that_fails_leaves_the_recipe_of_a_good_engine(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert CliRunner().invoke(app, ["build", str(model), "--precision", "fp32", "-o", str(out)]).exit_code == 0
    recipe = next(out.glob("*.toml"))
    before = recipe.read_text()
    failed = CliRunner().invoke(app, ["build", str(model), "--precision", "fp32", "-o", str(out), "--set", "size=[7, 9]"])
    assert failed.exception is not None
    assert recipe.read_text() == before


def test_a_recipe_of_which_nothing_was_built_is_not_said_to_have_been_used(model: Path, tmp_path: Path) -> None:
    failed = CliRunner().invoke(app, ["build", str(model), "--precision", "fp32", "-o", str(tmp_path), "--set", "size=[7, 9]"])
    assert "was used" not in failed.output
    assert "nothing was built of this recipe yet; change it and build it: " in failed.output
    assert (tmp_path / "tiny-fp32.toml").exists()
