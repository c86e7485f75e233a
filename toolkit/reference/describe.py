"""The stage table of a ResNet, as in the paper (He et al., 2015, arXiv:1512.03385, table 1), counted on the network itself."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn

from toolkit.errors import RecipeError
from toolkit.recipe import ARCHITECTURES
from toolkit.reference.resnet import ResNet, Stem, Version
from toolkit.types import Frozen


class Stage(Frozen, frozen=True):
    """One row: `output` is [C, H, W] after the stage; `macs` are the multiply-accumulates of one image."""

    name: str
    blocks: str
    output: tuple[int, ...]
    parameters: int
    macs: int


class Description(Frozen, frozen=True):
    """A whole network for one input size (height, width)."""

    arch: str
    version: str
    size: tuple[int, int]
    stages: tuple[Stage, ...]
    parameters: int
    macs: int


def describe(
    arch: str,
    size: tuple[int, int] = (224, 224),
    *,
    classes: int = 1000,
    channels: int = 3,
    width: float = 1.0,
    stem: Stem = "imagenet",
    version: Version = "v1.5",
) -> Description:
    """Build the network without memory for its weights, run one image of `size` through it, and count.

    MACs are those of convolutions and of the classifier, as the paper counts them. Raises RecipeError for an unknown name.
    """
    if arch not in ARCHITECTURES:
        raise RecipeError(f"'{arch}' is not a ResNet of this toolkit", remedy=f"Use {', '.join(ARCHITECTURES)}")
    if version not in get_args(Version):
        raise RecipeError(f"version '{version}' is not known", remedy=f"Use {' or '.join(get_args(Version))}")
    with torch.device("meta"):
        model = ResNet(arch, classes=classes, channels=channels, width=width, stem=stem, version=version).eval()
        macs, outputs = _measure(model, torch.empty(1, channels, *size))
    rows = {"conv1": ("conv1", "bn1"), **{f"conv{n + 1}_x": (f"layer{n}",) for n in (1, 2, 3, 4)}, "fc": ("fc",)}
    stages = []
    for name, parts in rows.items():
        modules: list[Any] = [getattr(model, part) for part in parts]
        stages.append(
            Stage(
                name=name,
                blocks=_blocks(name, modules[0], small=stem == "small"),
                output=tuple(outputs[modules[-1]].shape[1:]),
                parameters=sum(p.numel() for module in modules for p in module.parameters()),
                macs=sum(macs.get(child, 0) for module in modules for child in module.modules()),
            )
        )
    total = {key: sum(getattr(stage, key) for stage in stages) for key in ("parameters", "macs")}
    return Description(arch=arch, version=version, size=size, stages=tuple(stages), **total)


def _measure(model: nn.Module, image: Tensor) -> tuple[dict[nn.Module, int], dict[nn.Module, Tensor]]:
    """The MACs of every convolution and linear layer, and every module's output, in one forward pass."""
    macs: dict[nn.Module, int] = {}
    outputs: dict[nn.Module, Tensor] = {}

    def watch(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[module] = output
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            macs[module] = output.numel() * module.weight[0].numel()

    for module in model.modules():
        module.register_forward_hook(watch)
    with torch.no_grad():
        model(image)
    return macs, outputs


def _blocks(name: str, module: Any, *, small: bool) -> str:
    if isinstance(module, nn.Conv2d):
        return _kernel(module)
    if isinstance(module, nn.Linear):
        return f"average pool, {module.out_features}-d fc"
    convs = [child for child in module[-1].children() if isinstance(child, nn.Conv2d)]
    pool = "3x3 max pool, " if name == "conv2_x" and not small else ""
    return f"{pool}[{'; '.join(map(_kernel, convs))}] x {len(module)}"


def _kernel(conv: nn.Conv2d) -> str:
    stride = f", stride {conv.stride[0]}" if conv.stride[0] > 1 else ""
    return f"{conv.kernel_size[0]}x{conv.kernel_size[1]}, {conv.out_channels}{stride}"
