"""A recipe without a file: from a module, an ONNX file or weights, and keys by name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from toolkit.errors import RecipeError, WeightsError
from toolkit.recipe import Recipe
from toolkit.recipe.modules import held


def test_keys_find_their_tables() -> None:
    accept = {"data": "val", "images": 9}
    found = Recipe.of(
        Path("a/model.onnx"), int8=True, size=(32, 16), keep=["fc"], calibration="images", accept=accept, threads=1
    )
    assert found.name == "model-int8"
    assert found.reference.onnx == str(Path("a/model.onnx").absolute())
    assert (found.preprocess.size, found.precision.keep, found.build.threads) == ((32, 16), ("fc",), 1)
    assert (found.calibration.data, found.accept.images) == (str(Path("images").absolute()), 9)
    table = Recipe.of("model.onnx", precision={"weights": "mse", "int8": True}, calibration="images", name="own")
    assert (table.precision.weights, table.name) == ("mse", "own")


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("m.onnx", {"sise": 3}, ["no option 'sise'", "Did you mean size?", "calibration", "target"]),
        ("m.onnx", {"size": 3}, ["preprocess.size", "3"]),
        ("m.onnx", {"compute": "fp7"}, ["fp7", "fp32, fp16"]),
        ("m.onnx", {"int8": True}, ["calibration.data"]),
        ("m.onnx", {"calibration": {"image": 3}}, ["`calibration` has no key 'image'", "images"]),
        ("m.onnx", {"build": 3}, ["`build` is a table", "threads"]),
        ("m.onnx", {"arch": "resnet18"}, ["carries its network"]),
        ("m.pth", {}, ["Say `arch`"]),
        (3, {}, ["int is not a reference", "torch.nn.Module"]),
    ],
)
def test_what_is_wrong_names_what_exists(model: object, options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.of(model, **options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_module_is_copied_under_a_hash_of_it() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    recipe = Recipe.of(module, size=(2, 2), color="L", mean=[0.0], std=[1.0])
    assert recipe.reference.in_memory and recipe.reference.weights is not None
    x = torch.ones(1, 1, 2, 2)
    before = module(x)
    with torch.no_grad():
        module[1].weight += 1
    torch.testing.assert_close(held(recipe.reference.weights)(x), before)
    assert msgspec.convert(recipe.to_dict(), Recipe) == recipe


class Scaled(nn.Module):
    """What a state dict does not show: a plain number, and a buffer that is not kept."""

    def __init__(self, scale: float, mean: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.full((4,), mean), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (x.flatten(1) - self.mean)


def test_modules_of_the_same_weights_and_another_function_are_kept_apart() -> None:
    keys = {"size": (2, 2), "color": "L", "mean": [0.0], "std": [1.0]}
    made = [Recipe.of(Scaled(scale, mean).eval(), **keys) for scale, mean in ((1, 0), (2, 0), (1, 3), (1, 0))]
    held_under = [recipe.reference.weights for recipe in made]
    assert len(set(held_under)) == 3 and held_under[0] == held_under[3]
    answers = [float(held(key or "")(torch.ones(1, 1, 2, 2))[0, 0]) for key in held_under]
    assert answers == [1, 2, -2, 1]


def test_a_module_that_cannot_be_a_reference_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'2' of the module Sequential is in training mode\. Call \.eval\(\)"):
        Recipe.of(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval().append(nn.Dropout()))
    stuck = nn.Linear(2, 2).eval()
    stuck.held = (value for value in ())  # a generator cannot be copied
    with pytest.raises(WeightsError, match="cannot be copied"):
        Recipe.of(stuck)
    with pytest.raises(RecipeError, match="another process"):
        held("memory:" + "0" * 64)
    with pytest.raises(RecipeError, match="a module is its own architecture"):
        Recipe.of(nn.Linear(2, 2).eval(), arch="resnet18")


def test_numpy_is_no_reference() -> None:
    with pytest.raises(RecipeError, match="ndarray is not a reference"):
        Recipe.of(np.zeros(3))
