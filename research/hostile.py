"""Hostile weights: a ResNet that computes the same function in FP32 and ruins naive INT8.

    python -m research.hostile packaged:fashion-resnet18 --recipe streams --decades 3.2 --seed 3 -o hostile.safetensors

ReLU, addition and pooling let a positive scale of a channel through, so a scale that every writer of a channel takes and every
reader gives back is invisible in FP32; in INT8, where a tensor has one scale, it is not. The recipes:

pairs     the channels between the convolutions of a block are spread, log-uniformly, over `decades`
streams   the same for the residual streams: every writer and reader of a stage shares the spread
outliers  one channel in 32 of every such tensor, at least one, is `decades` larger than the rest
dead      the network grows by channels that are always zero, and whose readers' weights are `decades` larger than the rest
constant  the network grows by pairs of channels `decades` larger than the rest that hardly vary; each reader cancels a pair;
          and where a projection meets its block, one bears a large offset and the other its opposite
logits    the classifier's outputs are `decades` larger: top-1 stays, the logits are scaled
all       every one of these, in the order dead, constant, outliers, pairs, streams, logits

The state dict keeps its names; `dead` and `constant` widen it, so its `width` grows.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from toolkit.errors import WeightsError
from toolkit.images.dataset import PACKAGED
from toolkit.reference.weights import read_weights

State = dict[str, Tensor]
ORDER = ("dead", "constant", "outliers", "pairs", "streams", "logits")
RECIPES = (*ORDER, "all")


class Channels(NamedTuple):
    """The channels that some tensors of the network share: who writes them (BatchNorms) and who reads them (weights)."""

    writers: tuple[str, ...]
    readers: tuple[str, ...]


def ruin(state: State, recipe: str, *, decades: float = 3.2, seed: int = 0) -> State:
    """A new state dict, float32, of the same function (see the recipes above). Raises WeightsError, ValueError."""
    if recipe not in RECIPES:
        raise ValueError(f"recipe '{recipe}' is not known; use {', '.join(RECIPES)}")
    if "layer1.0.conv1.weight" not in state or "fc.weight" not in state:
        raise WeightsError("hostile weights need a ResNet's state dict (layer1.0.conv1.weight ... fc.weight)")
    state = {key: value.detach().clone().float() if value.is_floating_point() else value.clone() for key, value in state.items()}
    random = np.random.default_rng(seed)
    for name in ORDER if recipe == "all" else (recipe,):
        _RECIPES[name](state, decades, random)
    return state


def pairs(state: State) -> list[Channels]:
    """The channels between the convolutions of each block."""
    return [
        Channels((f"{block}.bn{k}",), (f"{block}.conv{k + 1}.weight",))
        for block in _blocks(state)
        for k in range(1, _depth(state, block))
    ]


def streams(state: State) -> list[Channels]:
    """The residual streams: the stem's, then one that begins at each projection."""
    writers, readers = ["bn1"], list[str]()
    found: list[Channels] = []
    for block in _blocks(state):
        readers.append(f"{block}.conv1.weight")
        if f"{block}.downsample.0.weight" in state:
            readers.append(f"{block}.downsample.0.weight")
            found.append(Channels(tuple(writers), tuple(readers)))
            writers, readers = [f"{block}.downsample.1"], []
        writers.append(f"{block}.bn{_depth(state, block)}")
    return [*found, Channels(tuple(writers), (*readers, "fc.weight"))]


def _blocks(state: State) -> list[str]:
    found = {(int(m[1]), int(m[2])) for key in state if (m := re.match(r"layer(\d)\.(\d+)\.conv1\.weight", key))}
    return [f"layer{stage}.{index}" for stage, index in sorted(found)]


def _depth(state: State, block: str) -> int:
    return 3 if f"{block}.conv3.weight" in state else 2


def _scale(state: State, channels: Channels, factor: Tensor) -> None:
    """Multiply each channel by `factor` [C] where it is written, and divide where it is read."""
    for norm in channels.writers:
        state[f"{norm}.weight"] *= factor
        state[f"{norm}.bias"] *= factor
    for weight in channels.readers:
        state[weight] /= factor.reshape(1, -1, *[1] * (state[weight].ndim - 2))


def _spread(groups: Callable[[State], list[Channels]]) -> Callable[[State, float, np.random.Generator], None]:
    def apply(state: State, decades: float, random: np.random.Generator) -> None:
        for channels in groups(state):
            count = len(state[f"{channels.writers[0]}.bias"])
            _scale(state, channels, torch.from_numpy(10 ** random.uniform(-decades / 2, decades / 2, count)).float())

    return apply


def _outliers(state: State, decades: float, random: np.random.Generator) -> None:
    for channels in (*pairs(state), *streams(state)):
        count = len(state[f"{channels.writers[0]}.bias"])
        factor = torch.ones(count)
        factor[random.choice(count, max(1, count // 32), replace=False)] = 10**decades
        _scale(state, channels, factor)


def _dead(state: State, decades: float, random: np.random.Generator) -> None:
    for channels, first in _grow(state, random):
        for norm in channels.writers:
            state[f"{norm}.weight"][first:] = 0
            state[f"{norm}.bias"][first:] = 0
        for weight in channels.readers:
            state[weight][:, first:] *= 10**decades


def _constant(state: State, decades: float, random: np.random.Generator) -> None:
    """Channel 2i is a large constant and a trace of what the random kernels see; 2i + 1 is its twin, read with the other sign."""
    for channels, first in _grow(state, random):
        for norm, conv in ((norm, _conv_of(norm)) for norm in channels.writers):
            state[f"{norm}.weight"][first:] = 0.01
            state[f"{norm}.bias"][first:] = 10**decades if norm == channels.writers[0] else 0
            for key in (conv, f"{norm}.running_mean", f"{norm}.running_var", f"{norm}.weight", f"{norm}.bias"):
                state[key][first + 1 :: 2] = state[key][first::2]
        for weight in channels.readers:
            state[weight][:, first:] *= 10**-decades
            state[weight][:, first + 1 :: 2] = -state[weight][:, first::2]
    for channels in streams(state)[1:]:
        projection, last = channels.writers[:2]
        state[f"{projection}.bias"] += 10 ** (decades - 1)
        state[f"{last}.bias"] -= 10 ** (decades - 1)


def _conv_of(norm: str) -> str:
    return norm.replace("downsample.1", "downsample.0").replace("bn", "conv") + ".weight"


def _grow(state: State, random: np.random.Generator) -> Iterable[tuple[Channels, int]]:
    """Widen every tensor by two channels for each stage's unit of width; yields each group and its first new channel.

    New kernels are random and as large as their neighbors; new BatchNorms have mean 0 and variance 1.
    """
    base = len(state["bn1.bias"])
    for key, value in list(state.items()):
        if value.ndim == 0:
            continue
        grown = list(value.shape)
        for axis in range(min(value.ndim, 2)):
            fixed = (axis == 1 and key == "conv1.weight") or (axis == 0 and key.startswith("fc."))
            if not fixed:
                grown[axis] = value.shape[axis] // base * (base + 2)
        if value.ndim > 1:  # the median, as a channel that is already hostile must not set the size of a new one
            new = torch.from_numpy(random.normal(0, 1.48 * float(value.abs().median()), grown)).float()
        else:
            new = torch.full(grown, float(key.endswith("running_var")))
        new[tuple(slice(0, size) for size in value.shape)] = value
        state[key] = new
    for channels in (*pairs(state), *streams(state)):
        yield channels, len(state[f"{channels.writers[0]}.bias"]) // (base + 2) * base


def _logits(state: State, decades: float, random: np.random.Generator) -> None:
    state["fc.weight"] *= 10**decades
    state["fc.bias"] *= 10**decades


_RECIPES = {
    "dead": _dead,
    "constant": _constant,
    "outliers": _outliers,
    "pairs": _spread(pairs),
    "streams": _spread(streams),
    "logits": _logits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a path, or packaged:NAME")
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--decades", type=float, default=3.2, help="orders of magnitude (default 3.2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .safetensors file")
    given = parser.parse_args()
    kind, _, name = given.weights.partition(":")
    weights = read_weights(PACKAGED / f"{name}.safetensors" if kind == "packaged" else Path(given.weights))
    hostile = ruin(weights.tensors, given.recipe, decades=given.decades, seed=given.seed)
    width = str(len(hostile["bn1.bias"]) / 64)
    note = {"hostile": f"{given.recipe} decades={given.decades} seed={given.seed} of {given.weights}"}
    save_file(hostile, given.out, {**weights.metadata, "width": width, **note})


if __name__ == "__main__":
    main()
