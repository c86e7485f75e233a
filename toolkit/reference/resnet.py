"""The reference: ResNet-18, 34, 50, 101 and 152 (He et al., 2015, arXiv:1512.03385, table 1), in PyTorch.

Module and tensor names are torchvision's, so that its checkpoints and timm's load with `strict=True`; so do those of the wide
(Zagoruyko and Komodakis, 2016, arXiv:1605.07146), grouped (ResNeXt; Xie et al., 2016, arXiv:1611.05431), ResNet-C and ResNet-D
forms (He et al., 2018, arXiv:1812.01187).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Version = Literal["v1", "v1.5"]
Stem = Literal["imagenet", "small", "cifar", "cifar-pool", "deep"]
STEMS: tuple[Stem, ...] = ("imagenet", "small", "cifar", "cifar-pool", "deep")


class Architecture(NamedTuple):
    """Blocks per stage and the kind of block: all that tells one ResNet from another."""

    bottleneck: bool
    depths: tuple[int, int, int, int]


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(False, (2, 2, 2, 2)),
    "resnet34": Architecture(False, (3, 4, 6, 3)),
    "resnet50": Architecture(True, (3, 4, 6, 3)),
    "resnet101": Architecture(True, (3, 4, 23, 3)),
    "resnet152": Architecture(True, (3, 8, 36, 3)),
}


class Form(NamedTuple):
    """In what a network departs from the paper's. A checkpoint's names and shapes tell all of it.

    `inner` widens the 3x3 convolution of a bottleneck (2 in Wide ResNet-50-2), `groups` splits it (32 in ResNeXt). `pooled`:
    a strided shortcut averages 2x2 pixels and projects them at stride 1 (ResNet-D). `deep`: outputs of the first two of the
    three 3x3 convolutions that are the deep stem (ResNet-C and D); the third has those of the first stage.
    """

    inner: float = 1.0
    groups: int = 1
    pooled: bool = False
    deep: tuple[int, int] = (32, 32)


PLAIN = Form()


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the resolution at stride 1; it has no bias, as BatchNorm follows."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def projection(inputs: int, outputs: int, stride: int, form: Form) -> nn.Sequential | None:
    """The shortcut of a block: identity (None) where shapes agree, a strided 1x1 convolution where they do not."""
    if stride == 1 and inputs == outputs:
        return None
    norm = nn.BatchNorm2d(outputs)
    if not form.pooled:
        return nn.Sequential(conv(inputs, outputs, 1, stride), norm)
    pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, conv(inputs, outputs, 1), norm)


def first_layers(channels: int, base: int, stem: Stem, form: Form) -> tuple[nn.Module, nn.Module]:
    """`conv1` and `maxpool`: float [N, channels, H, W] -> [N, base, H/s, W/s], s = 4, 2 (small, cifar-pool) or 1 (cifar)."""
    pool: nn.Module = nn.MaxPool2d(3, 2, 1) if stem in ("imagenet", "cifar-pool", "deep") else nn.Identity()
    if stem != "deep":
        return conv(channels, base, 7 if stem == "imagenet" else 3, 2 if stem in ("imagenet", "small") else 1), pool
    one, two = form.deep
    layers = [conv(channels, one, 3, 2), nn.BatchNorm2d(one), nn.ReLU(inplace=True)]
    layers += [conv(one, two, 3), nn.BatchNorm2d(two), nn.ReLU(inplace=True), conv(two, base, 3)]
    return nn.Sequential(*layers), pool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: float [N, inputs, H, W] -> [N, planes, H/stride, W/stride]."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, version: Version, shortcut: bool, form: Form = PLAIN) -> None:
        super().__init__()
        self.conv1 = conv(inputs, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = projection(inputs, planes, stride, form) if shortcut else None
        self.shortcut = shortcut

    def residual(self, x: Tensor) -> Tensor:
        """The branch that learns: what the block adds to its input."""
        x = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.bn2(self.conv2(x))
        return result

    def forward(self, x: Tensor) -> Tensor:
        return _add(self, x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: float [N, inputs, H, W] -> [N, 4 * planes, H/stride, W/stride].

    V1.5 puts the stride on the 3x3 convolution, the original V1 on the first 1x1, where it throws 3/4 of the input away.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, version: Version, shortcut: bool, form: Form = PLAIN) -> None:
        super().__init__()
        outputs, inner = planes * self.expansion, round(planes * form.inner)
        first, second = (stride, 1) if version == "v1" else (1, stride)
        self.conv1 = conv(inputs, inner, 1, first)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, second, form.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(inputs, outputs, stride, form) if shortcut else None
        self.shortcut = shortcut

    def residual(self, x: Tensor) -> Tensor:
        """The branch that learns: what the block adds to its input."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        result: Tensor = self.bn3(self.conv3(x))
        return result

    def forward(self, x: Tensor) -> Tensor:
        return _add(self, x)


def _add(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    total = block.residual(x)
    if block.shortcut:
        total = total + (x if block.downsample is None else block.downsample(x))
    result: Tensor = block.relu(total)
    return result


class ResNet(nn.Module):
    """float32 [N, channels, H, W] -> logits float32 [N, classes].

    `width` scales every channel count (1.0: 64, 128, 256, 512). `stem` is `imagenet` (7x7, stride 2, max-pool), or one 3x3
    convolution for small images: `small` (stride 2, no pool), `cifar` (stride 1, no pool), `cifar-pool` (stride 1, max-pool);
    or `deep` (three of 3x3, max-pool). `shortcut=False` gives the plain network that the paper compares with.
    """

    def __init__(
        self,
        arch: str,
        *,
        classes: int = 1000,
        channels: int = 3,
        width: float = 1.0,
        stem: Stem = "imagenet",
        version: Version = "v1.5",
        shortcut: bool = True,
        form: Form = PLAIN,
    ) -> None:
        super().__init__()
        kind = ARCHITECTURES[arch]
        base = round(64 * width)
        block = Bottleneck if kind.bottleneck else BasicBlock
        self.metadata = {"arch": arch, "width": str(width), "stem": stem}  # what a file of these weights says of itself
        self.conv1, self.maxpool = first_layers(channels, base, stem, form)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU(inplace=True)
        inputs = base
        stages = []
        for stage, depth in enumerate(kind.depths):
            planes = base << stage
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(inputs, planes, stride, version, shortcut, form))
                inputs = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits
