"""A first recipe for a file from a stranger: what the file says of itself stands in comments, and nothing else of it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.graph.load.files import write
from toolkit.draft import commented, draft
from toolkit.errors import GraphError
from toolkit.recipe import Recipe
from toolkit.recipe.write import recipe_toml

ORDERS = "\n[accept]\nmin_agreement = 0.0\nmax_top1_drop = 99.0\n"


def test_the_recipe_of_gray_pictures_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What is assumed of them is left away, to be assumed again: the defaults of three channels are none for one."""
    gray = helper.make_node("Concat", ["pixels"] * 3, ["image"], axis=1)
    path = write(tmp_path / "net.onnx", shape=("N", 1, 8, 8), start=[gray])
    recipe = draft(path).recipe
    assert {"mean", "std"} <= set(recipe.assumed) and recipe.preprocess.mean == (0.449,)
    for text in (recipe_toml(recipe, tmp_path), commented(draft(path), tmp_path)):
        again = Recipe.parse(text).resolve(tmp_path)
        assert (again.preprocess, again.assumed) == (recipe.preprocess, recipe.assumed)
    said = Recipe.parse('name = "x"\n[reference]\nonnx = "net.onnx"\n[preprocess]\ncolor = "L"\nmean = [0.5]\nstd = [0.5]')
    assert said.preprocess.mean == (0.5,) and "mean" not in said.assumed


def test_what_a_file_says_of_itself_never_leaves_its_comment(tmp_path: Path) -> None:
    """A producer or a tensor with a line break in its name would otherwise write lines of the recipe."""
    path = write(tmp_path / "net.onnx", outputs=[helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])])
    model = onnx.load(path)
    model.producer_name, model.producer_version = f"torch{ORDERS}", "\r2\x1b[2J\x00"
    onnx.save(model, path)
    drafted = draft(path)
    text = commented(drafted, tmp_path)
    read = Recipe.parse(text)
    assert read.accept == Recipe.parse('name = "x"\n[reference]\nonnx = "net.onnx"').accept
    assert read.to_dict()["reference"] == {"onnx": "net.onnx"}
    assert (
        "by torch [accept] min_agreement = 0.0 max_top1_drop = 99.0 2\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}"
        in text
    )


def test_a_type_that_onnx_does_not_know_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = 999
    onnx.save(model, path)
    assert any(line.startswith("input image ? [") for line in draft(path).told)


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.onnx")
    with pytest.raises(GraphError, match="not a regular file"):
        draft(tmp_path / "net.onnx")


@pytest.mark.parametrize("shape", [["N", 12], ["N", 3, 8, 8, 2], []])
def test_a_file_whose_input_is_no_picture_gets_a_recipe_all_the_same(tmp_path: Path, shape: list[str | int]) -> None:
    """Nothing is known of [preprocess] then, and the table is left away."""
    path = write(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    onnx.save(model, path)
    text = commented(draft(path), tmp_path)
    assert Recipe.parse(text).reference.onnx == "net.onnx"
    assert "# [preprocess]" in text
