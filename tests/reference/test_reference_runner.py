"""The PyTorch reference behind a Runner."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from toolkit.errors import ClosedError, DataError, InputError
from toolkit.images.dataset import open_data
from toolkit.recipe import Preprocess, Recipe, Reference
from toolkit.reference.runner import open_reference
from toolkit.reference.weights import digest, load_reference

RECIPE = Recipe(
    name="fashion",
    reference=Reference(arch="resnet18", weights="packaged:fashion-resnet18", classes="packaged:fashion"),
    preprocess=Preprocess(size=(28, 28), color="L", mean=(0.286,), std=(0.353,)),
)


def test_it_answers_as_the_module_does_and_is_gone_after_close() -> None:
    batch = next(open_data("packaged:fashion-test", RECIPE.preprocess).batches(9))
    model = load_reference(RECIPE.reference)
    with open_reference(RECIPE) as runner:
        got = runner(batch)
        with torch.inference_mode():
            assert np.array_equal(got, model(torch.from_numpy(batch)).numpy())
        assert got.dtype == np.float32
        with pytest.raises(InputError, match="batch of 0"):
            runner(batch[:0])
        with pytest.raises(InputError, match=r"\[N, 1, 28, 28\]"):
            runner(batch[:, :, :27])
    with pytest.raises(ClosedError):
        runner(batch)


def test_its_manifest_says_what_it_is() -> None:
    with open_reference(RECIPE) as runner:
        manifest = runner.manifest
    assert (manifest.name, manifest.precision) == ("fashion-reference", "fp32")
    assert manifest.outputs[0].shape == ("N", 10)
    assert manifest.hashes == {"weights": digest(load_reference(RECIPE.reference))}
    assert manifest.versions == {"torch": torch.__version__}


def test_it_classifies_pictures_by_name() -> None:
    data = open_data("packaged:fashion-test", RECIPE.preprocess, 200)
    with open_reference(RECIPE) as runner:
        best = [top[0].label for top in runner.classify([data.picture(i) for i in range(200)])]
    assert np.mean([name == data.classes[label] for name, label in zip(best, data.labels, strict=True)]) > 0.85


def test_arrays_that_cannot_be_written_or_are_not_contiguous_are_taken_without_a_warning() -> None:
    batch = next(open_data("packaged:fashion-test", RECIPE.preprocess).batches(8))
    with open_reference(RECIPE) as runner, warnings.catch_warnings():
        warnings.simplefilter("error")
        want = runner(batch)
        batch.flags.writeable = False
        np.testing.assert_allclose(runner(batch), want)
        np.testing.assert_allclose(runner(batch[::-1]), want[::-1], atol=1e-5)


def test_random_weights_take_classes_and_channels_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    reference = Reference(arch="resnet18", weights="random:0", width=0.125, classes=str(tmp_path / "labels.txt"))
    recipe = msgspec.structs.replace(RECIPE, reference=reference)
    with open_reference(recipe) as runner:
        assert runner(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 3)
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(DataError, match=r"labels\.txt cannot be read"):
        open_reference(recipe)


def test_threads_are_set_for_the_process() -> None:
    before = torch.get_num_threads()
    try:
        with open_reference(RECIPE, threads=1) as runner:
            assert torch.get_num_threads() == runner.manifest.settings["threads"] == 1
    finally:
        torch.set_num_threads(before)
