"""Inside: what a module in memory does to its input before its first layer with parameters, found by trying it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from toolkit.graph.load.normal import Affine, Normal, by_mean, by_statistics
from toolkit.recipe import Preprocess

LEVELS = (0.0, 1.0, 0.5)
NEAR = 1e-4


class _Reached(Exception):
    """Ends a call once the first layer has its input."""


def normalization_in(module: nn.Module, how: Preprocess) -> Normal | None:
    """As `normalization_of` a file: of even pictures, what reaches the first layer with parameters of its own is y = a x + b in
    each channel, or says nothing. None where the module takes no such images."""
    if how.channels != 3 or isinstance(module, torch.jit.ScriptModule):
        return None
    axis = 1 if how.layout == "NCHW" else 3
    shape = (1, *how.input_shape)
    feeds = [torch.full(shape, level) for level in LEVELS]
    for channel in range(3):
        one = torch.zeros(shape)
        one.select(axis, channel).fill_(1.0)
        feeds.append(one)
    seen = [_first_input(module, feed) for feed in feeds]
    if any(found is None for found in seen) or seen[0] is None:
        return None
    layer, values = seen[0][0], [_even(found[1]) for found in seen if found is not None]
    if any(value is None for value in values):
        return None
    b, full, half, *single = (value for value in values if value is not None)
    matrix = np.stack([value - b for value in single], axis=1)  # [channel of the layer, channel of the image]
    a, order = full - b, tuple(int(i) for i in np.abs(matrix).argmax(axis=1))
    scale = float(np.abs(a).max())
    alone = sorted(order) == [0, 1, 2] and np.allclose(matrix[range(3), order], a, atol=NEAR * scale)
    if scale == 0 or not alone or not np.allclose(half, b + a / 2, atol=NEAR * max(scale, float(np.abs(b).max()))):
        return None
    name = next(path for path, part in module.named_modules() if part is layer)
    same = np.allclose(a, 1, atol=NEAR) and np.allclose(b, 0, atol=NEAR)
    found = Affine(a, b, () if same else (f"before '{name}'",), order)
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
        return by_statistics(layer.running_mean.double().numpy(), layer.running_var.double().numpy() + layer.eps, found, name)
    return by_mean(found)


def _first_input(module: nn.Module, feed: torch.Tensor) -> tuple[nn.Module, torch.Tensor] | None:
    """The first layer that a call comes to, of those that hold parameters or statistics themselves, and what it is given."""
    taken: list[tuple[nn.Module, torch.Tensor]] = []

    def take(layer: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], torch.Tensor):
            taken.append((layer, given[0].detach().float()))
        raise _Reached

    hooks: list[Callable[[], None]] = []
    for part in module.modules():
        if isinstance(part, (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.Linear)):
            hooks.append(part.register_forward_pre_hook(take).remove)
    try:
        with torch.inference_mode():
            module(feed)
    except Exception:  # _Reached, or whatever the user's code raises of such an image: the reference says it when it is opened
        pass
    finally:
        for remove in hooks:
            remove()
    return taken[0] if taken else None


def _even(value: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """[1, 3, H, W], each channel of one value -> the three; None for anything else."""
    if value.ndim != 4 or value.shape[1] != 3:
        return None
    flat = value[0].double().flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    return flat.mean(1).numpy() if torch.allclose(low, high, atol=NEAR) else None
