"""The training, at a hundredth of its size."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from research.packaged import write_idx
from research.train import MEAN, STD, augment, main
from toolkit.images.dataset import PACKAGED, read_idx
from toolkit.recipe import Reference
from toolkit.reference.weights import digest, load_reference


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A data folder of 512 + 256 real images, and a recipe of two epochs."""
    for split, name in (("train", "train"), ("t10k", "test")):
        count = 512 if name == "train" else 256
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", read_idx(PACKAGED / f"fashion-{name}-images.idx.gz")[:count])
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", read_idx(PACKAGED / f"fashion-{name}-labels.idx.gz")[:count])
    text = (PACKAGED / "fashion-resnet18.train.toml").read_text()
    for key, value in (("name", '"small"'), ("epochs", "2"), ("batch", "32"), ("width", "0.125")):
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    (tmp_path / "small.toml").write_text(text)
    return tmp_path, tmp_path / "small.toml"


def train(small: tuple[Path, Path], out: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    data, recipe = small
    monkeypatch.setattr(sys, "argv", ["train", str(recipe), "-o", str(data / out), "--data", str(data)])
    main()
    return data / out / "small.safetensors"


def test_training_learns_logs_and_repeats(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    first = train(small, "first", monkeypatch)
    model = load_reference(Reference(arch="resnet18", weights=str(first)))
    images = (read_idx(small[0] / "t10k-images-idx3-ubyte.gz").astype(np.float32)[:, None] / 255 - MEAN) / STD
    labels = read_idx(small[0] / "t10k-labels-idx1-ubyte.gz")
    with torch.inference_mode():
        top1 = 100 * float(np.mean(model(torch.from_numpy(images)).argmax(1).numpy() == labels))
    *epochs, stored = map(json.loads, first.with_name("small.log.jsonl").read_text().splitlines())
    assert stored["top1"] == pytest.approx(top1, abs=0.5), "the log's last line is about the file as written"
    assert top1 > 20, "twice as good as chance"
    assert epochs[1]["loss"] < epochs[0]["loss"]
    assert f"small: {stored['top1']:.2f} % top-1" in capsys.readouterr().out
    again = load_reference(Reference(arch="resnet18", weights=str(train(small, "again", monkeypatch))))
    assert digest(again) == digest(model)


def test_augmentation_only_mirrors_and_moves() -> None:
    images = torch.full((64, 1, 9, 9), -MEAN / STD)
    images[:, 0, 4, 2] = 1.0
    moved = augment(images, 2, torch.Generator().manual_seed(0))
    assert torch.equal(moved.flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    places = {tuple(place) for place in torch.nonzero(moved[:, 0] == 1.0)[:, 1:].tolist()}
    assert {row for row, _ in places} == {2, 3, 4, 5, 6}
    assert {column for _, column in places} == set(range(9)), "2 and its mirror image 6, each moved by up to 2"
    assert torch.equal(augment(images, 2, torch.Generator().manual_seed(0)), moved)


@pytest.mark.parametrize(("recipe", "words"), [("", "missing required field"), (None, "No such file")])
def test_what_it_cannot_read_is_one_line(recipe: str | None, words: str, tmp_path: Path, monkeypatch, capsys) -> None:
    if recipe is not None:
        (tmp_path / "small.toml").write_text(recipe)
    with pytest.raises(SystemExit, match="2"):
        train((tmp_path, tmp_path / "small.toml"), "out", monkeypatch)
    assert words in capsys.readouterr().err


def test_data_that_is_not_there(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (small[0] / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(SystemExit, match="2"):
        train(small, "out", monkeypatch)
    assert "t10k-labels-idx1-ubyte.gz does not exist" in capsys.readouterr().err
