"""A recipe's `[reference]` -> the PyTorch ResNet with its weights, in eval mode, and what was chosen on the way.

`weights` is a path, `packaged:NAME`, `torchvision:IMAGENET1K_V1|V2` or `random:SEED`. Width, stem, input channels and classes
come from the recipe where it names them, then from the file's metadata, then from tensor shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from toolkit.errors import WeightsError
from toolkit.images.dataset import PACKAGED
from toolkit.recipe import Reference
from toolkit.reference.published import published
from toolkit.reference.resnet import ARCHITECTURES, PLAIN, ResNet, Version
from toolkit.reference.weights.check import check
from toolkit.reference.weights.choice import pick
from toolkit.reference.weights.files import Content, neighbor, read_content
from toolkit.reference.weights.labels import labels_in
from toolkit.reference.weights.records import Record
from toolkit.reference.weights.refusals import refuse_framework, refuse_named
from toolkit.reference.weights.shapes import Variant, Weights, meta_network, network, variant_of
from toolkit.types import Progress

MOST = 4 << 30  # bytes of weights that are made up


class LoadedWeights(NamedTuple):
    """A reference, and in words what was assumed, skipped or chosen when its file was read."""

    model: ResNet
    notes: tuple[str, ...]


def load_reference(
    reference: Reference, *, channels: int | None = None, classes: int = 1000, progress: Progress | None = None
) -> ResNet:
    """`open_weights` without the notes."""
    return open_weights(reference, channels=channels, classes=classes, progress=progress).model


def open_weights(
    reference: Reference, *, channels: int | None = None, classes: int = 1000, progress: Progress | None = None
) -> LoadedWeights:
    """The reference in eval mode, float32.

    `channels` is what the pictures have, to be compared with the first convolution; only `random:SEED` takes it (absent: 3) and
    `classes` as they are. `progress` counts the bytes of a download. Raises WeightsError.
    """
    if reference.arch is None or reference.weights is None:
        raise WeightsError("the recipe's reference is an ONNX file, which has no PyTorch weights")
    if reference.weights.startswith("random:"):
        plan = Variant(channels or 3, classes, 1.0, "imagenet", PLAIN)
        _check_size(reference, plan)
        return LoadedWeights(randomize(network(reference, plan), _seed(reference.weights), plan.channels), ())
    weights = read_weights(_file(reference.arch, reference.weights, progress), reference.ema, reference.version)
    known = weights.metadata.get("arch")
    if known in ARCHITECTURES and known != reference.arch:
        raise WeightsError(f"{weights.where} holds a {known}, the recipe says {reference.arch}", remedy=f'Write arch = "{known}"')
    plan = variant_of(reference, weights)
    check(reference, plan, weights)
    _check_channels(plan, channels, weights.where)
    model = network(reference, plan)
    model.load_state_dict({name: weights.tensors.get(name, value) for name, value in model.state_dict().items()}, strict=True)
    notes = [*weights.picked.notes, *_form_notes(plan)]
    if weights.labels is not None and reference.classes is None:
        notes.append(weights.labels.note)
    return LoadedWeights(model.float().eval(), tuple(f"weights: {note}" for note in notes))


def read_weights(path: Path, averaged: bool | None = None, version: Version | None = None) -> Weights:
    """The tensors of one network in a file, by torchvision's names; of raw and averaged weights the raw ones, unless `averaged`.

    `version` is where the recipe has a bottleneck's stride, to be compared with what the file says of it. Raises WeightsError.
    """
    content = read_content(path)
    refuse_named(str(path), _words(path, content))
    _check_version(path, content, version)
    try:
        picked = pick(str(path), content.value, averaged)
    except WeightsError:
        refuse_framework(str(path), content.classes)
        raise
    return Weights(str(path), picked.tensors, content.metadata, picked, labels_in(content.value, neighbor(path)))


def _words(path: Path, content: Content) -> list[str]:
    """What the file, its name and the config beside it call the architecture."""
    words: list[Any] = [path.stem, neighbor(path).get("architecture")]
    if isinstance(content.value, Mapping):
        words.append(content.value.get("arch"))
        for key in ("args", "hyper_parameters", "config", "opt"):
            held = content.value.get(key)
            held = held.__dict__ if isinstance(held, Record) else held
            if isinstance(held, Mapping):
                words += [held.get("model"), held.get("arch"), held.get("model_name")]
    return [word for word in (*words, content.metadata.get("arch")) if isinstance(word, str)]


def _check_version(path: Path, content: Content, version: Version | None) -> None:
    """Raise WeightsError where the file's configuration has a bottleneck's stride elsewhere: no tensor shows it."""
    meta = content.value.get("meta") if isinstance(content.value, Mapping) else None
    texts = [text for text in (meta or {}).values() if isinstance(text, str)] if isinstance(meta, Mapping) else []
    first = any(re.search(r"""style\s*=\s*['"]caffe['"]""", text) for text in texts)  # mmpretrain's words
    first = first or neighbor(path).get("downsample_in_bottleneck") is True  # transformers'
    if first and version == "v1.5":
        what = f"{path} was trained with the stride in the first 1x1 convolution of a bottleneck"
        raise WeightsError(what, remedy='Write version = "v1" in [reference]')


def _form_notes(plan: Variant) -> list[str]:
    form, said = plan.form, []
    if form.groups > 1:
        said.append(f"the 3x3 convolutions of its bottlenecks have {form.groups} groups (ResNeXt)")
    if form.inner != 1:
        said.append(f"the 3x3 convolutions of its bottlenecks are {form.inner:g} times as wide")
    if form.pooled:
        said.append("its strided shortcuts average 2x2 pixels first (ResNet-D, as in timm)")
    return said


def _check_channels(plan: Variant, channels: int | None, where: str) -> None:
    if channels is None or plan.channels == channels:
        return
    color = {1: '"L", and one value each for `mean` and `std`', 3: '"RGB", and three values each for `mean` and `std`'}
    what = f"{where} takes pictures of {plan.channels} channel(s), the recipe's `preprocess.color` gives {channels}"
    named = color.get(plan.channels)
    raise WeightsError(what, remedy=f"Write color = {named}" if named else "Such pictures cannot be read here")


def _check_size(reference: Reference, plan: Variant) -> None:
    """Raise WeightsError for random weights beyond MOST: a recipe may ask for 64 times the width, so 4,096 times as many."""
    model = meta_network(reference, plan)
    size = 0 if model is None else sum(4 * parameter.numel() for parameter in model.parameters())
    if model is None or size > MOST:
        what = f"a {reference.arch} of width {reference.width or plan.width:g} has {size / 1e9:.3g} GB of weights"
        raise WeightsError(what, remedy=f"Write a smaller `width` in [reference]: {MOST >> 30} GiB at most are made up")


def randomize(model: ResNet, seed: int, channels: int) -> ResNet:
    """Seeded weights, then BatchNorm statistics as they are on smooth noise, so that every activation has a sane scale.

    Each statistic is the average over four batches of eight images [channels, 64, 64] of unit variance.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for parameter in model.parameters():
        if parameter.ndim > 1:  # He initialization (2015, arXiv:1502.01852) by fan-in; kernels [out, in, ...]
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=random)
    nn.init.zeros_(model.fc.bias)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches, not an exponential one
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(_smooth_noise(8, channels, random))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def _smooth_noise(count: int, channels: int, random: torch.Generator) -> Tensor:
    """Noise with the falling spectrum of photographs: random grids of 4, 16 and 64 cells a side, blown up and added."""
    grids = [torch.randn(count, channels, cells, cells, generator=random) for cells in (4, 16, 64)]
    grown = [nn.functional.interpolate(grid, (64, 64), mode="bilinear") for grid in grids]
    image = torch.stack(grown).sum(0)
    return image / image.std()


def _seed(spec: str) -> int:
    text = spec.removeprefix("random:")
    if not text.isdecimal() or len(text) > 18:
        raise WeightsError(f"'{spec:.80}' has no seed", remedy="Write a whole number of at most 18 digits, such as random:0")
    return int(text)


def _file(arch: str, spec: str, progress: Progress | None) -> Path:
    kind, _, name = spec.partition(":")
    if kind == "torchvision":
        return published(arch, name, progress)
    if kind != "packaged":
        return Path(spec)
    path = PACKAGED / f"{name}.safetensors"
    if path.parent != PACKAGED or not path.is_file():  # the name is a stranger's, where an engine's recipe holds it
        names = ", ".join(f"packaged:{known.stem}" for known in sorted(PACKAGED.glob("*.safetensors")))
        raise WeightsError(f"no weights named '{name}' are packaged", remedy=f"Packaged are: {names}")
    return path
