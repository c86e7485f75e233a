"""Engines that were made for something else, or changed on the way: told from the manifest, on a command line without a GPU."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from toolkit import orders
from toolkit.cli import main as cli
from toolkit.disk.files import sha256_bytes
from toolkit.manifest import UNSEALED
from toolkit.recipe import Recipe

pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")

ENGINES = Path(__file__).parents[2] / "engines"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same FP32 model for a GPU of sm89 and for the CPU, and a picture."""
    folder = tmp_path_factory.mktemp("engines")
    recipe = Recipe.load(ENGINES / "fashion-resnet18-fp32.toml")
    recipe = msgspec.structs.replace(recipe, name="model")
    orders.build_all([recipe], "cpu,rtx:sm89", folder, proof=False)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "picture.png")
    return folder


def changed(source: Path, there: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of an engine whose manifest `change` has gone over, sealed again as a stranger would do."""
    shutil.copytree(source, there)
    manifest = json.loads((there / "manifest.json").read_text())
    change(manifest)
    manifest["seal"] = UNSEALED
    text = json.dumps(manifest, indent=1).encode()
    (there / "manifest.json").write_bytes(text.replace(UNSEALED.encode(), sha256_bytes(text).encode()))
    return there


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process; gives what it says on its way out with status 2."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["toolkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert done.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return run


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("model-rtx-sm89", lambda m: m["versions"].update(tensorrt_rtx="1.6.0.1"), "was built by tensorrt_rtx 1.6.0.1; here is"),
        ("model-rtx-sm89", lambda m: m["versions"].pop("tensorrt_rtx"), "was built by tensorrt_rtx an unknown version"),
        ("model-rtx-sm89", lambda m: m.update(target="cpu", settings={}), "is an engine of tensorrt_rtx, though its manifest"),
        ("model", lambda m: m.update(target="rtx:sm89", settings={}), "was built by tensorrt_rtx an unknown version"),
        ("model-rtx-sm89", lambda m: m.update(file="../model/model.onnx"), "has no compiled file '../model/model.onnx'"),
    ],
)
def test_another_kind_or_version_is_told_from_the_manifest(engines, said, tmp_path, name, change, words):
    engine = changed(engines / name, tmp_path / "engine", change)
    assert words in said("run", engine, engines / "picture.png")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:99] + b"?" + data[100:]])
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_a_damaged_plan_is_told_from_its_hash(engines, said, tmp_path, command, damage):
    engine = changed(engines / "model-rtx-sm89", tmp_path / "engine", lambda m: None)
    plan = engine / "engine.plan"
    plan.write_bytes(damage(plan.read_bytes()))
    pictures = [engines / "picture.png"] if command == "run" else []
    assert "is not the file that its manifest describes" in said(command, engine, *pictures)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data.replace(b"Relu", b"Selu")])
def test_a_graph_that_is_not_the_engines_is_not_inspected(engines, said, tmp_path, damage):
    engine = changed(engines / "model-rtx-sm89", tmp_path / "engine", lambda m: None)
    graph = engine / "graph.onnx"
    graph.write_bytes(damage(graph.read_bytes()))
    assert "graph.onnx" in said("inspect", engine)
