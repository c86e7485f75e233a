"""Tensor names as other code writes them -> torchvision's. Each layout is known by one name that no other has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from toolkit.reference.resnet import Stem

# Put into names at any depth by what wraps a module: torch.compile, FSDP, activation checkpointing.
_WRAPPED = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
# Of no use at inference, wherever it is: thop's counters.
_COUNTERS = re.compile(r"(^|\.)total_(ops|params)$")


class Layout(NamedTuple):
    """`anchor` is a pattern of the one name; `rules` rewrite names; `stem` is what its networks are known to have."""

    name: str
    anchor: str
    rules: tuple[tuple[str, str], ...] = ()
    stem: Stem | None = None


_TORCHVISION = Layout("torchvision", r"layer1\.0\.conv1\.weight")
# https://github.com/kuangliu/pytorch-cifar, models/resnet.py: the anchor is torchvision's, the shortcut's name is not
_CIFAR10 = Layout("pytorch-cifar", r"layer2\.0\.shortcut\.0\.weight", ((r"(?<=\.)shortcut\.", "downsample."),), "cifar")
# https://github.com/weiaicunzai/pytorch-cifar100, models/resnet.py
_CIFAR100 = Layout(
    "pytorch-cifar100",
    r"conv2_x\.0\.residual_function\.0\.weight",
    (
        (r"^conv1\.0\.", "conv1."), (r"^conv1\.1\.", "bn1."), (r"^conv2_x\.", "layer1."), (r"^conv3_x\.", "layer2."),
        (r"^conv4_x\.", "layer3."), (r"^conv5_x\.", "layer4."), (r"\.residual_function\.0\.", ".conv1."),
        (r"\.residual_function\.1\.", ".bn1."), (r"\.residual_function\.3\.", ".conv2."), (r"\.residual_function\.4\.", ".bn2."),
        (r"\.residual_function\.6\.", ".conv3."), (r"\.residual_function\.7\.", ".bn3."), (r"(?<=\.)shortcut\.", "downsample."),
    ),
    "cifar",
)  # fmt: skip
_STAGES = tuple((rf"^encoder\.stages\.{n}\.layers\.", f"layer{n + 1}.") for n in range(4))
_LAYERS = tuple(
    (rf"\.layer\.{n}\.{theirs}\.", f".{ours}{n + 1}.")
    for n in range(3)
    for theirs, ours in (("convolution", "conv"), ("normalization", "bn"))
)
# transformers' ResNetForImageClassification
_TRANSFORMERS = Layout(
    "Hugging Face transformers",
    r"encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight",
    (
        (r"^embedder\.embedder\.convolution\.", "conv1."), (r"^embedder\.embedder\.normalization\.", "bn1."), *_STAGES, *_LAYERS,
        (r"\.shortcut\.convolution\.", ".downsample.0."), (r"\.shortcut\.normalization\.", ".downsample.1."),
    ),
)  # fmt: skip
LAYOUTS = (_TORCHVISION, _CIFAR100, _TRANSFORMERS)


class Trunk(NamedTuple):
    """One network among the names of a state dict: the layout it is in, and what stands before each of its names."""

    layout: Layout
    prefix: str


def unwrapped(name: str) -> str:
    """The name without what torch.compile and its like put into it."""
    return _WRAPPED.sub("", name).lstrip(".")


def is_counter(name: str) -> bool:
    return _COUNTERS.search(name) is not None


def trunks(names: Iterable[str]) -> list[Trunk]:
    """Every network that the names belong to: one for each prefix before an anchor."""
    known, found = list(names), []
    for layout in LAYOUTS:
        pattern = re.compile(rf"(?:.*\.)?(?={layout.anchor}$)")
        prefixes = dict.fromkeys(match[0] for name in known if (match := pattern.match(name)))
        for prefix in prefixes:
            strange = layout is _TORCHVISION and any(re.fullmatch(re.escape(prefix) + _CIFAR10.anchor, name) for name in known)
            found.append(Trunk(_CIFAR10 if strange else layout, prefix))
    return found


def renamed(name: str, trunk: Trunk) -> str:
    """torchvision's name for a tensor of `trunk`; a name outside of it stays as it is."""
    if not name.startswith(trunk.prefix):
        return name
    inner = name.removeprefix(trunk.prefix)
    for pattern, ours in trunk.layout.rules:
        inner = re.sub(pattern, ours, inner)
    return inner
