"""What people give in place of a recipe: said for what it is, with the line that makes a recipe of it; that line works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.graph.load.files import TensorProto, helper, write
from toolkit.cli.main import app
from toolkit.engine.engine import load
from toolkit.errors import EngineError, RecipeError
from toolkit.recipe import Recipe


@pytest.mark.parametrize("command", ["export", "calibrate", "tune"])
def test_a_command_that_takes_a_recipe_says_how_a_model_gets_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("mine.onnx"), outputs=[helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])])
    with pytest.raises(RecipeError, match=r"mine\.onnx is an ONNX file, not a recipe") as caught:
        CliRunner().invoke(app, [command, "mine.onnx"], catch_exceptions=False)
    line = re.search(r"toolkit (init .*)", str(caught.value))
    assert line is not None
    done = CliRunner().invoke(app, shlex.split(line[1]), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert Recipe.load("mine.toml").precision.int8


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "m.PT"])
def test_weights_are_no_recipe(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"name = 1")
    with pytest.raises(RecipeError, match=r"is a file of weights, not a recipe.*toolkit init"):
        Recipe.load(tmp_path / name)


def test_an_engine_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(RecipeError, match="is an engine, not a recipe"):
        Recipe.load(tmp_path)
    with pytest.raises(RecipeError, match="there is no recipe"):
        Recipe.load(tmp_path / "gone.onnx")


@pytest.mark.parametrize(("name", "kind"), [("m.onnx", "an ONNX file"), ("m.pth", "a file of weights"), ("m.toml", "a recipe")])
def test_what_is_given_in_place_of_an_engine_is_said_too(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"name = 1")
    with pytest.raises(EngineError, match=f"is {kind}, not an engine.*toolkit build"):
        load(tmp_path / name)


def test_a_resize_inside_the_engine_is_refused_by_its_name() -> None:
    with pytest.raises(RecipeError, match=r'`preprocess.inside` = .resize.: .*the resize stays outside.*toolkit parity'):
        Recipe.parse('name = "x"\n[preprocess]\ninside = "resize"\n')
    with pytest.raises(RecipeError, match=r"expected `bool`") as other:
        Recipe.parse('name = "x"\n[preprocess]\ninside = "all"\n')
    assert "resize" not in str(other.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("preprocess.size = 64", r"`preprocess.size` = 64: .*write a list: size = \[64, 64\]"),
        ("preprocess.mean = 0.5", r"`preprocess.mean` = 0.5: .*write a list: mean = \[0.5\]"),
        ('precision.keep = "layer1"', r"`precision.keep` = 'layer1': .*write a list: keep = \[\"layer1\"\]"),
        ("preprocess.resize = 72", r"the crop, size = \[224, 224\]: set `size` too, such as size = \[72, 72\], or leave"),
    ],
)
def test_a_refused_value_says_what_to_write(line: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.parse(f'name = "x"\nreference.onnx = "m.onnx"\n{line}\n')
