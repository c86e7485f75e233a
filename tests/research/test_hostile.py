from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from research.hostile import RECIPES, pairs, ruin, streams
from toolkit.errors import WeightsError
from toolkit.images.dataset import PACKAGED
from toolkit.reference.resnet import ResNet
from toolkit.reference.weights import load_reference, read_weights


def model_of(arch: str, state: dict[str, torch.Tensor]) -> ResNet:
    model = ResNet(arch, classes=10, channels=1, width=len(state["bn1.bias"]) / 64, stem="small")
    model.load_state_dict(state)
    return model.eval()


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_function_stays(arch: str, recipe: str) -> None:
    state = read_weights(PACKAGED / f"fashion-{arch}.safetensors").tensors
    images = torch.randn(32, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = model_of(arch, state).float()(images)
        after = model_of(arch, ruin(state, recipe, decades=3.2, seed=5))(images)
    if recipe in ("logits", "all"):
        after = after / 10**3.2
    assert (after - before).abs().max() <= 1e-4 * before.abs().max()
    assert torch.equal(after.argmax(1), before.argmax(1))


def test_every_block_and_stream_is_found() -> None:
    state = read_weights(PACKAGED / "fashion-resnet50.safetensors").tensors
    assert len(pairs(state)) == 2 * (3 + 4 + 6 + 3)
    assert [len(s.writers) for s in streams(state)] == [1, 4, 5, 7, 4]  # a stem or projection, then a writer a block
    assert [len(s.readers) for s in streams(state)] == [2, 4, 5, 7, 3]  # the next stage reads twice; the last has `fc` instead
    state = read_weights(PACKAGED / "fashion-resnet18.safetensors").tensors
    assert [len(s.writers) for s in streams(state)] == [3, 3, 3, 3]


def test_spread_reaches_the_decades_and_follows_the_seed() -> None:
    state = read_weights(PACKAGED / "fashion-resnet18.safetensors").tensors
    one, again, other = (ruin(state, "streams", decades=4, seed=seed) for seed in (1, 1, 2))
    ratio = one["layer4.0.downsample.1.weight"] / state["layer4.0.downsample.1.weight"]
    assert 3 < torch.log10(ratio.max() / ratio.min()) <= 4
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_other_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match="ResNet's state dict"):
        ruin({"features.0.weight": torch.zeros(1)}, "pairs")
    with pytest.raises(ValueError, match="recipe 'nice' is not known"):
        ruin({}, "nice")


def test_the_command_writes_a_file_that_a_recipe_takes(tmp_path: Path) -> None:
    from toolkit.recipe import Reference

    out = tmp_path / "hostile.safetensors"
    command = [sys.executable, "-m", "research.hostile", "packaged:fashion-resnet18", "--recipe", "dead", "-o", str(out)]
    subprocess.run(command, check=True, timeout=60)
    model = load_reference(Reference(arch="resnet18", weights=str(out)))
    assert model.conv1.out_channels == 18  # two channels that are always zero beside the 16
