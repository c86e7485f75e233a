"""One packaged network, built once for this room: INT8 with a block spread over four decades, and FP16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from toolkit import pipeline
from toolkit.images.dataset import PACKAGED
from toolkit.recipe import Recipe
from toolkit.reference.weights import read_weights
from toolkit.types import Target

RECIPE = """
name = "{name}"
[reference]
arch = "resnet18"
weights = "{weights}"
[preprocess]
size = [28, 28]
mean = [0.286]
std = [0.353]
color = "L"
[precision]
{precision}
[calibration]
data = "{data}"
images = 24
method = "minmax"
[build]
threads = 1
"""
SICK = "layer3.1"  # the block whose inner channels are spread


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def build(
    folder: Path, name: str, precision: str, weights: str, target: str = "cpu", data: str = "packaged:fashion-train"
) -> Path:
    recipe = Recipe.parse(RECIPE.format(name=name, weights=weights, precision=precision, data=data))
    trip = pipeline.prepare(recipe, proof=False)
    pipeline.build(trip, Target.parse(target), folder / name)
    return folder / name


@pytest.fixture(scope="session")
def odd_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The FP32 function is the packaged network's; the channels between a block's two convolutions lie four decades apart."""
    state = {key: value.float() for key, value in read_weights(PACKAGED / "fashion-resnet18.safetensors").tensors.items()}
    spread = torch.logspace(-2, 2, len(state[f"{SICK}.bn1.bias"]))
    state[f"{SICK}.bn1.weight"] *= spread
    state[f"{SICK}.bn1.bias"] *= spread
    state[f"{SICK}.conv2.weight"] /= spread[None, :, None, None]
    path = tmp_path_factory.mktemp("odd") / "odd.safetensors"
    save_file(state, path, {"arch": "resnet18", "width": "0.25", "stem": "small"})
    return path


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory, odd_weights: Path) -> Path:
    plain = 'int8 = true\nequalize = "none"\nweights = "absmax"\nrounding = "nearest"\nbias_correction = false'
    return build(tmp_path_factory.mktemp("engines"), "odd", plain, str(odd_weights))


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("engines"), "half", 'compute = "fp16"', "packaged:fashion-resnet18")
