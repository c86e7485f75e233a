"""What classes are called: by the folders where a recipe names none and the answers bear it out; and how many there may be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import toolkit
from tests.reference.test_foreign_onnx import brightness, pictures, recipe
from toolkit import pipeline
from toolkit.errors import DataError
from toolkit.manifest import Manifest
from toolkit.outputs import Outputs
from toolkit.reference.names import label_names
from toolkit.reference.resnet import ResNet
from toolkit.reference.source import open_source
from toolkit.types import Target


def built(path: Path, data: Path, folder: Path, reference: str = "") -> Manifest:
    return pipeline.build(pipeline.prepare(recipe(path, data, reference)), Target("cpu"), folder / "engine")


@pytest.mark.parametrize("columns", [1, 2])
def test_folders_name_the_classes(tmp_path: Path, columns: int) -> None:
    """Also those of one column; a picture is then answered by a name, where the reference and its folders are no more."""
    data = pictures(tmp_path / "val")
    manifest = built(brightness(tmp_path / "m.onnx", [], columns), data, tmp_path)
    assert manifest.classes == ("dark", "light")
    assert "the classes are named after the folders of val: dark, light" in manifest.notes
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "engine").iterdir()), "of this machine"
    shutil.rmtree(data)
    with toolkit.load(tmp_path / "engine") as runner:
        dark, light = (np.full((8, 8, 3), shade, np.uint8) for shade in (5, 250))
        assert [answer[0].label for answer in runner.classify([dark, light])] == ["dark", "light"]


def test_names_that_the_answers_deny_are_not_taken(tmp_path: Path) -> None:
    """The folders in another order than the model's classes: a wrong name is worse than a number, and the WARNING says why."""
    manifest = built(brightness(tmp_path / "m.onnx", [], 2), pictures(tmp_path / "val", ("zebra", "ape")), tmp_path)
    assert manifest.classes is None
    assert manifest.notes[-1].startswith("WARNING")


def test_numbers_are_no_names_and_a_file_of_names_comes_first(tmp_path: Path) -> None:
    path = brightness(tmp_path / "m.onnx", [], 2)
    assert built(path, pictures(tmp_path / "numbered", ("0", "1")), tmp_path).classes is None
    (tmp_path / "names.txt").write_text("dark one\nlight one\n")
    data = pictures(tmp_path / "val")
    assert built(path, data, tmp_path, f'classes = "{tmp_path / "names.txt"}"').classes == ("dark one", "light one")


def test_an_engine_of_the_same_trip_has_the_names_as_well(tmp_path: Path) -> None:
    one = recipe(brightness(tmp_path / "m.onnx", [], 2), pictures(tmp_path / "val"))
    first = pipeline.prepare(one)
    second = pipeline.prepare(one, like=first)
    assert second.source.reference.manifest.classes == ("dark", "light")
    assert [remark for remark in second.remarks if "are named after" in remark]


@pytest.mark.parametrize(
    ("columns", "names", "words"),
    [
        (1001, 1000, "TensorFlow's ImageNet models count 1001"),
        (1000, 999, "Give the names that belong to this model"),
        (11, 10, "Give the names that belong.*If instead its first column is a background class, set `reference.offset = 1`"),
        (10, 12, "Give the names that belong"),
    ],
)
def test_a_background_class_is_offered_only_where_there_may_be_one(columns: int, names: int, words: str) -> None:
    """1000 columns are ImageNet's: a name is missing, and no class in front."""
    with pytest.raises(DataError, match=words) as caught:
        label_names(tuple(map(str, range(names))), Outputs(), columns, "m.onnx")
    assert ("offset" in str(caught.value)) == (columns == names + 1 != 1000)


def test_names_are_as_many_as_the_classes_of_a_pytorch_model_too(tmp_path: Path) -> None:
    """They went into an engine that was then called damaged."""
    (tmp_path / "names.txt").write_text("dark\nlight\ngray\n")
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2)).eval()
    recipe = toolkit.Recipe.of(module, size=(8, 8), classes=tmp_path / "names.txt")
    with pytest.raises(DataError, match=r"answers with 2 columns, and `reference.classes` names 3 classes"):
        open_source(recipe)
    torch.save(ResNet("resnet18", classes=2, width=0.125).state_dict(), tmp_path / "w.pth")
    recipe = toolkit.Recipe.of(tmp_path / "w.pth", arch="resnet18", size=(32, 32), classes=tmp_path / "names.txt")
    with pytest.raises(DataError, match=r"answers with 2 columns, and `reference.classes` names 3 classes"):
        open_source(recipe)


def test_a_missing_class_folder_is_told_as_such(tmp_path: Path) -> None:
    path = brightness(tmp_path / "m.onnx", [], 4)
    with pytest.raises(DataError, match=r"has 3 class folders, and the reference answers 4 classes.*some may be missing"):
        pipeline.prepare(recipe(path, pictures(tmp_path / "val", ("a", "b", "c"))))


def test_what_python_shows_of_an_engine_can_be_read(tmp_path: Path) -> None:
    """In a notebook: the engine, its runner and its verdict; and what judging lacks, in Python's words too."""
    built(brightness(tmp_path / "m.onnx", [], 2), pictures(tmp_path / "val"), tmp_path)
    engine = toolkit.Engine.open(tmp_path / "engine")
    assert repr(engine).startswith("<Engine r: fp32 for CPU") and str(tmp_path) in repr(engine)
    with engine.runner() as runner:
        assert repr(runner) == "<Runner of r: [N, 3, 8, 8] -> [N, 2]>"
    assert repr(runner).endswith("closed>")
    verdict = engine.judge()
    assert repr(verdict) == str(verdict) and "r: " in repr(verdict)
    bare = pipeline.build(pipeline.prepare(recipe(tmp_path / "m.onnx")), Target("cpu"), tmp_path / "bare")
    assert bare.classes is None
    with pytest.raises(DataError, match=r"--data FOLDER; in Python judge\(data=FOLDER\)"):
        toolkit.Engine.open(tmp_path / "bare").judge()
