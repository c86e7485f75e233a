"""`toolkit export --for trtexec`: the pairs that TensorRT takes, whatever the target, and a script that finds its file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from toolkit import pipeline
from toolkit.cli.main import app
from toolkit.recipe import Recipe
from toolkit.types import Target

RECIPE = """
name = "small"
[reference]
arch = "resnet18"
weights = "random:1"
width = 0.125
[preprocess]
size = [32, 32]
color = "L"
mean = [0.5]
std = [0.25]
[precision]
int8 = true
equalize = "none"
[calibration]
data = "images.npy"
method = "minmax"
images = 16
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).standard_normal((24, 1, 32, 32)).astype(np.float32))
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path / "small.toml"


def run(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def zero_points(path: Path) -> set[int]:
    model = onnx.load(path)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2]
    return {int(value) for node in nodes for value in constants[node.input[2]].reshape(-1)}


def test_for_trtexec_the_graph_is_symmetric_and_the_script_runs_where_the_file_is(recipe: Path, tmp_path: Path) -> None:
    own, output = tmp_path / "own.onnx", tmp_path / "made" / "typed.onnx"
    output.parent.mkdir()
    run("export", recipe, "-o", own)
    run("export", recipe, "-o", output, "--for", "trtexec")
    assert zero_points(own) != {0} and zero_points(output) <= {0}
    _, line = output.with_suffix(".trtexec.sh").read_text().splitlines()
    words = shlex.split(line)
    assert words[:3] == ["trtexec", "--onnx=typed.onnx", "--stronglyTyped"] and words[-1] == "--saveEngine=typed.plan"
    assert f"--optShapes={onnx.load(output).graph.input[0].name}:8x1x32x32" in words


def test_an_exported_file_says_how_its_pixels_are_made_and_what_its_columns_are(recipe: Path, tmp_path: Path) -> None:
    pipeline.export(Recipe.load(recipe), tmp_path / "m.onnx", target=Target("tensorrt"))
    found = {prop.key: prop.value for prop in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(found["preprocess"])["mean"] == [0.5]
    assert found["target"] == "tensorrt" and found["precision"] == "int8" and found["outputs_are"] == "logits"
