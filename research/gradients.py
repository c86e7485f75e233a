"""How strongly the loss pulls at each layer of a fresh network: measured for docs/explanation/resnet.md."""

from __future__ import annotations

import torch
from torch import nn

from toolkit.reference.resnet import ResNet


def gradient_norms(
    arch: str, *, shortcut: bool, seed: int, width: float = 0.125, size: int = 32, batch: int = 8
) -> dict[str, float]:
    """Layer name -> Euclidean norm of the gradient of the cross-entropy with regard to its kernel, from the first to the last.

    The network is fresh (He initialization, BatchNorm in training mode), `width` thin, with the small stem; it sees `batch`
    images of Gaussian noise, `size` pixels a side, with random labels of ten classes. Projections are left out, so that plain
    networks and those with shortcuts show the same layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 10, (batch,))
        model = ResNet(arch, classes=10, width=width, stem="small", shortcut=shortcut).train()
    kernels = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and "downsample" not in name
    }
    loss = nn.functional.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, list(kernels.values()))
    return {name: gradient.norm().item() for name, gradient in zip(kernels, gradients, strict=True)}
