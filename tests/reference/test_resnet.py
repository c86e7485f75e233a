"""The network against torchvision's, and the reasons for its shortcuts."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toolkit.reference.resnet import ARCHITECTURES, BasicBlock, Bottleneck, ResNet


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values for every tensor that depend on its name alone; kernels keep the scale of what passes through."""
    result = {}
    for name, value in state.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if value.ndim > 1:
            new = random.standard_normal(value.shape) * np.sqrt(2 / value[0].numel())
        elif name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            new = random.uniform(0.5, 1.5, value.shape)
        else:
            new = random.standard_normal(value.shape) * 0.1
        result[name] = torch.from_numpy(np.asarray(new)).to(value.dtype)
    return result


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_names_shapes_and_order_are_torchvisions(arch: str, torchvision) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, arch)().state_dict()
        ours = ResNet(arch).state_dict()
    assert [(name, value.shape) for name, value in ours.items()] == [(name, value.shape) for name, value in theirs.items()]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_torchvision_state_dict_loads_strictly_and_gives_its_logits(arch: str, torchvision) -> None:
    theirs = getattr(torchvision.models, arch)().eval()
    theirs.load_state_dict(filled(theirs.state_dict()))
    ours = ResNet(arch).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want, got = theirs(images), ours(images)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_initial_kernels_have_the_variance_of_he_by_fan_out(arch: str) -> None:
    torch.manual_seed(0)
    for name, module in ResNet(arch, width=0.25).named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4096:
            kernel = module.weight
            expected = (2 / (kernel.shape[0] * kernel.shape[2] * kernel.shape[3])) ** 0.5
            assert kernel.std().item() == pytest.approx(expected, rel=0.1), name


def block(kind: type[BasicBlock | Bottleneck], channels: int) -> BasicBlock | Bottleneck:
    return kind(channels, channels // kind.expansion, 1, "v1.5", True).eval()


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_block_whose_residual_branch_is_zero_is_the_identity_on_non_negative_input(kind: type) -> None:
    unit = block(kind, 16)
    last = unit.bn3 if isinstance(unit, Bottleneck) else unit.bn2
    images = torch.randn(2, 16, 9, 7)
    with torch.inference_mode():
        assert not torch.equal(unit(images.relu()), images.relu()), "the branch does something before it is zero"
        nn.init.zeros_(last.weight)
        assert torch.equal(unit(images.relu()), images.relu())
        assert not torch.equal(unit(images), images), "and it is ReLU that asks for non-negative input"


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_the_shortcut_is_identity_where_shapes_agree_and_a_projection_where_not(kind: type) -> None:
    planes = 16 // kind.expansion
    assert kind(16, planes, 1, "v1.5", True).downsample is None
    for inputs, stride in ((16, 2), (8, 1), (8, 2)):
        unit = kind(inputs, planes, stride, "v1.5", True)
        assert unit.downsample is not None
        assert unit(torch.randn(1, inputs, 8, 8)).shape == (1, 16, 8 // stride, 8 // stride)


def test_v1_strides_on_the_first_convolution_and_v15_on_the_middle_one() -> None:
    def strides(version: str) -> list[int]:
        unit = ResNet("resnet50", width=0.125, version=version).layer2[0]
        return [unit.conv1.stride[0], unit.conv2.stride[0], unit.conv3.stride[0]]

    assert strides("v1") == [2, 1, 1]
    assert strides("v1.5") == [1, 2, 1]


def test_v1_never_sees_three_quarters_of_what_enters_a_stage() -> None:
    """Change the odd pixels that go into a strided block: V1 answers the same, V1.5 does not."""
    torch.manual_seed(0)
    images = torch.randn(1, 32, 8, 8)
    changed = images.clone()
    changed[..., 1::2, :] += 1
    changed[..., :, 1::2] += 1
    answers = {}
    for version in ("v1", "v1.5"):
        unit = Bottleneck(32, 16, 2, version, True).eval()
        with torch.inference_mode():
            answers[version] = torch.equal(unit(images), unit(changed))
    assert answers == {"v1": True, "v1.5": False}


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 7), ("small", 14)])
def test_the_small_stem_keeps_more_of_a_small_image(stem: str, size: int) -> None:
    model = ResNet("resnet18", classes=10, channels=1, width=0.125, stem=stem).eval()
    with torch.inference_mode():
        assert model.maxpool(model.conv1(torch.zeros(1, 1, 28, 28))).shape[-1] == size
        assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
