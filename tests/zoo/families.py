"""torchvision's families, as small as each still is itself: an ONNX file of each in about a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

CLASSES = 6


def squeezenet(models: ModuleType) -> Any:
    """Two fire modules between the stem and the classifier, which ends in a convolution, a ReLU and a pool."""
    from torch import nn
    from torchvision.models.squeezenet import Fire

    model = models.squeezenet1_1(num_classes=CLASSES)
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    model.features = nn.Sequential(*list(model.features)[:3], Fire(64, 8, 16, 16), pool, Fire(32, 8, 16, 16))
    model.classifier[1] = nn.Conv2d(32, CLASSES, 1)
    return model


def resnext(models: ModuleType) -> Any:
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 2, 1, 1], num_classes=CLASSES, groups=4, width_per_group=4)


def mobilenet_v3(models: ModuleType) -> Any:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    block = partial(InvertedResidualConfig, width_mult=1.0)
    blocks = [
        block(16, 3, 16, 16, True, "RE", 2, 1),
        block(16, 5, 48, 24, True, "HS", 2, 1),
        block(24, 5, 72, 24, True, "HS", 1, 1),
    ]
    return MobileNetV3(blocks, last_channel=64, num_classes=CLASSES)


def efficientnet(models: ModuleType) -> Any:
    from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

    blocks = [FusedMBConvConfig(1, 3, 1, 16, 16, 1), MBConvConfig(4, 3, 2, 16, 24, 2)]
    return EfficientNet(blocks, dropout=0.2, num_classes=CLASSES)


def regnet(models: ModuleType) -> Any:
    from torchvision.models.regnet import BlockParams, RegNet

    return RegNet(BlockParams([1, 1, 1, 1], [16, 24, 32, 48], [8, 8, 8, 8], [1.0] * 4, [2, 2, 2, 2], 0.25), num_classes=CLASSES)


def convnext(models: ModuleType) -> Any:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 2)], num_classes=CLASSES)


NETWORKS: dict[str, Callable[[ModuleType], Any]] = {
    "resnext": resnext,
    "squeezenet": squeezenet,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
    "regnet": regnet,
    "shufflenet": lambda models: models.ShuffleNetV2([1, 2, 1], [16, 32, 48, 64, 96], num_classes=CLASSES),
    "densenet": lambda models: models.DenseNet(8, (2, 2), 16, num_classes=CLASSES),
    "convnext": convnext,
    "vit": lambda models: models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=CLASSES),
    "swin": lambda models: models.SwinTransformer([4, 4], 16, [2], [2], [4, 4], num_classes=CLASSES),
}
