"""Activations: what each layer of the PyTorch reference gives, by the names that the exported graph's tensors have."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toolkit.types import Array


def activations(model: nn.Module, batch: Array) -> dict[str, Array]:
    """float32 batch -> each leaf module's output. A convolution followed by its BatchNorm has the BatchNorm's: folded, they
    are one. A module that runs twice appears as `name` and `name_2`."""
    values: dict[str, Array] = {}
    last_conv = [""]

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            key = last_conv[0] if isinstance(module, nn.BatchNorm2d) and last_conv[0] else name
            last_conv[0] = name if isinstance(module, nn.Conv2d) else ""
            count, free = 1, key
            while free in values and not isinstance(module, nn.BatchNorm2d):
                count += 1
                free = f"{key}_{count}"
            values[free] = output.detach().clone().numpy()  # a later in-place ReLU writes into `output`

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(keep(name)) for name, module in leaves]
    try:
        with torch.inference_mode():
            model(torch.from_numpy(batch))
    finally:
        for handle in handles:
            handle.remove()
    return values
