"""What a module in memory does to its pictures itself is not done to them before it as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from toolkit import pipeline
from toolkit.graph.run import graph_runner
from toolkit.recipe import Recipe
from toolkit.reference.normal import fit_normalization

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Net(nn.Module):
    """As `how` says: a picture of 0 to `most` is normalized before the first convolution."""

    def __init__(self, how: str, most: float = 1.0) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("mean", (most * MEAN).view(3, 1, 1))
        self.register_buffer("std", (most * STD).view(3, 1, 1))
        self.bn = nn.BatchNorm2d(3, affine=False)
        self.bn.running_mean, self.bn.running_var = most * MEAN, (most * STD) ** 2
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flip(1) if "turned" in self.how else x
        if "batchnorm" in self.how:
            x = self.bn(x)
        elif "normalized" in self.how:
            x = (x - self.mean) / self.std
        elif "mixed" in self.how:
            x = x.mean(1, keepdim=True).expand(-1, 3, -1, -1) - 0.45
        return self.fc(self.conv(x).relu().mean((2, 3)))


def net(how: str, most: float = 1.0) -> Net:
    torch.manual_seed(0)
    return Net(how, most).eval()


@pytest.mark.parametrize("how", ["normalized", "batchnorm", "normalized, turned"])
@pytest.mark.parametrize("most", [1.0, 255.0])
def test_a_module_that_normalizes_is_given_the_pixels_it_expects(how: str, most: float) -> None:
    module = net(how, most)
    trip = pipeline.prepare(Recipe.of(module, size=(16, 16), threads=1))
    found = trip.recipe.preprocess
    assert (found.scale, found.mean, found.std) == (1 if most > 1 else 1 / 255, (0, 0, 0), (1, 1, 1))
    assert found.color == ("BGR" if "turned" in how else "RGB")
    assert any(remark.startswith("the module normalizes its input itself") for remark in trip.remarks)
    assert not any("assumed" in remark for remark in trip.remarks)
    pixels = np.random.default_rng(0).random((3, 3, 16, 16), np.float32) * np.float32(most)
    with torch.inference_mode():
        want = module(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(graph_runner(trip.graph, 1)(pixels), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["plain", "mixed"])
def test_a_module_that_does_not_is_left_alone(how: str) -> None:
    recipe = Recipe.of(net(how), size=(16, 16))
    assert fit_normalization(recipe) == (recipe, ())
    assert recipe.assumed == ("color", "scale", "mean", "std")


def test_what_was_said_is_obeyed_with_a_warning() -> None:
    recipe = Recipe.of(net("normalized"), size=(16, 16), mean=[0.5] * 3, std=[0.5] * 3, color="RGB")
    kept, (warning,) = fit_normalization(recipe)
    assert kept == recipe
    assert warning.startswith("WARNING: the module normalizes its input itself (before 'conv'), and [preprocess] does so before")
