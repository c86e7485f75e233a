"""What is shipped: the data cut from Fashion-MNIST, the trained weights and their logs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from research.packaged import main as cut
from research.train import MEAN, STD, TrainingRecipe
from toolkit.images.dataset import PACKAGED, open_data, read_idx
from toolkit.recipe import Preprocess, Recipe, Reference
from toolkit.reference.runner import open_reference

SOURCE = Path("/usr/share/datasets/fashion-mnist")
MODELS = ("fashion-resnet18", "fashion-resnet50")


def hashes(name: str) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in read_idx(PACKAGED / f"fashion-{name}-images.idx.gz")]


def test_calibration_never_sees_a_test_image() -> None:
    assert set(hashes("train")).isdisjoint(hashes("test"))


def test_every_image_has_a_label() -> None:
    for name, count in (("test", 10_000), ("train", 2_048)):
        assert read_idx(PACKAGED / f"fashion-{name}-images.idx.gz").shape == (count, 28, 28)
        labels = read_idx(PACKAGED / f"fashion-{name}-labels.idx.gz")
        assert labels.shape == (count,)
        assert set(labels.tolist()) == set(range(10))


def test_the_files_are_what_their_script_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not SOURCE.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    monkeypatch.setattr("research.packaged.PACKAGED", tmp_path)
    monkeypatch.setattr("sys.argv", ["make", str(SOURCE)])
    cut()
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in PACKAGED.glob("*.idx.gz"))
    for name in made:  # gzip's bytes differ between versions of zlib; what they hold does not
        assert np.array_equal(read_idx(tmp_path / name), read_idx(PACKAGED / name)), name


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_reach_their_logged_accuracy_and_the_promised_one(name: str) -> None:
    stored = json.loads((PACKAGED / f"{name}.log.jsonl").read_text().splitlines()[-1])
    how = Preprocess(size=(28, 28), color="L", mean=(MEAN,), std=(STD,))
    reference = Reference(arch=name.removeprefix("fashion-"), weights=f"packaged:{name}")
    data = open_data("packaged:fashion-test", how)
    with open_reference(Recipe(name=name, reference=reference, preprocess=how)) as runner:
        answers = np.concatenate([runner(batch).argmax(1) for batch in data.batches(500)])
    top1 = 100 * float(np.mean(answers == data.labels))
    assert top1 == pytest.approx(stored["top1"], abs=0.021)  # two images: another CPU sums in another order
    assert stored["top1"] >= 92


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_small_and_their_recipe_and_log_belong_together(name: str) -> None:
    assert (PACKAGED / f"{name}.safetensors").stat().st_size <= 3_000_000
    recipe = msgspec.toml.decode((PACKAGED / f"{name}.train.toml").read_bytes(), type=TrainingRecipe)
    *epochs, stored = map(json.loads, (PACKAGED / f"{name}.log.jsonl").read_text().splitlines())
    assert recipe.name == name
    assert [line["epoch"] for line in epochs] == list(range(1, recipe.epochs + 1))
    assert stored["seed"] == recipe.seed


def test_the_licences_lie_beside_the_data() -> None:
    for name, words in (("fashion-mnist", "Zalando SE"), ("wordnet", "Princeton University")):
        assert words in (PACKAGED / f"LICENSE.{name}").read_text()


def test_a_copy_of_the_data_without_one_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(PACKAGED / "fashion-test-images.idx.gz", tmp_path)
    monkeypatch.setattr("toolkit.images.dataset.PACKAGED", tmp_path)
    with pytest.raises(Exception, match=r"fashion-test-labels\.idx\.gz does not exist"):
        open_data("packaged:fashion-test", Preprocess(size=(28, 28), color="L", mean=(0,), std=(1,)))
