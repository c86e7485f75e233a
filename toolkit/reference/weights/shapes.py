"""Tensors by torchvision's names -> the network that has them: its width, stem and form, from what the file shows."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from toolkit.errors import WeightsError
from toolkit.recipe import Reference
from toolkit.reference.resnet import ARCHITECTURES, STEMS, Form, ResNet, Stem
from toolkit.reference.weights.choice import Picked
from toolkit.reference.weights.labels import Labels
from toolkit.reference.weights.records import Record, modules_of
from toolkit.reference.weights.refusals import EXPORT, refuse_signs

_ASK = (
    'Write in [reference] stem = "cifar" (stride 1 and no pooling, as most networks for CIFAR have it), "cifar-pool" (stride 1, '
    'then a max-pool) or "small" (stride 2 and no pooling), as the network was trained'
)
_MOST_CLASSES, _MOST_WIDTH = 1 << 20, 64
_FEW = 4  # tensors by which a file may depart from an architecture that it is still called after


class Weights(NamedTuple):
    """Tensors by torchvision's names, as they are in the file; the file's own words about them; what was chosen on the way."""

    where: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    picked: Picked
    labels: Labels | None = None


class Variant(NamedTuple):
    """All that decides a network beside its `arch` and `version`."""

    channels: int
    classes: int
    width: float
    stem: Stem
    form: Form


def variant_of(reference: Reference, weights: Weights) -> Variant:
    """What the recipe, the file's metadata and the tensors' shapes say, in this order. Raises WeightsError."""
    deep = "conv1.0.weight" in weights.tensors
    first = _end(weights, "conv1.0.weight" if deep else "conv1.weight", 4)
    norm, last = _end(weights, "bn1.weight", 1), _end(weights, "fc.weight", 2)
    if last.shape[0] == 0:
        raise WeightsError(f"{weights.where} has 0 classes: 'fc.weight' is {list(last.shape)}", remedy="Use the trained weights")
    if last.shape[0] > _MOST_CLASSES or norm.shape[0] > 64 * _MOST_WIDTH or not 1 <= first.shape[1] <= 64:
        shapes = f"'conv1.weight' {list(first.shape)} and 'fc.weight' {list(last.shape)}"
        what = f"{weights.where}: {shapes} are not a classifier's shapes"
        raise WeightsError(what, remedy="Use the trained weights")
    width = _width(weights, norm.shape[0])
    stem = reference.stem or ("deep" if deep else _stem(weights, first))
    return Variant(first.shape[1], last.shape[0], width, stem, _form(weights, norm.shape[0], deep))


def network(reference: Reference, plan: Variant, arch: str | None = None) -> ResNet:
    """The network of a plan, with fresh weights; the recipe's own width and stem come first."""
    assert reference.arch is not None
    return ResNet(
        arch or reference.arch,
        classes=plan.classes,
        channels=plan.channels,
        width=reference.width or plan.width,
        stem=reference.stem or plan.stem,
        version=reference.version,
        form=plan.form,
    )


def _end(weights: Weights, name: str, ndim: int) -> Tensor:
    """The first or the last kernel, or the first norm, whose shape says what goes in and comes out."""
    tensor = weights.tensors.get(name)
    if tensor is not None and tensor.ndim == ndim:
        return tensor
    if tensor is not None:
        what = f"{weights.where}: '{name}' has {tensor.ndim} dimensions, a ResNet's has {ndim}"
        raise WeightsError(what, remedy=EXPORT)
    refuse_signs(weights.where, list(weights.tensors))
    missing = {
        "fc.weight": "no classifier: it has no 2-dimensional tensor 'fc.weight', as a backbone alone has none",
        "conv1.weight": "no first convolution 'conv1.weight', though it has other layers of a ResNet",
        "bn1.weight": "no 'bn1.weight' after its first convolution, as pre-activation networks have none",
    }.get(name, f"no {ndim}-dimensional tensor '{name}'")
    raise WeightsError(f"{weights.where} has {missing}", remedy=f"Use the whole classifier; for another network: {EXPORT}")


def _width(weights: Weights, base: int) -> float:
    """What the metadata says, once it fits the tensors; otherwise the tensors' own, over 64."""
    said = weights.metadata.get("width")
    if said is None:
        return base / 64
    try:
        width = float(said)
    except ValueError:
        width = math.nan
    if not math.isfinite(width) or round(64 * width) != base:
        what = f"{weights.where}: its metadata says width '{said[:40]}', its first stage of {base} channels has {base / 64:g}"
        raise WeightsError(what, remedy="Save it without metadata, or with the right one")
    return width


def _stem(weights: Weights, first: Tensor) -> Stem:
    kernel = tuple(first.shape[2:])
    said = weights.metadata.get("stem")
    if said is not None:
        if said not in STEMS:
            what = f"{weights.where}: its metadata says stem '{said[:40]}'"
            raise WeightsError(what, remedy=f"Known are {', '.join(STEMS)}: write one as `stem` in [reference]")
        return said
    if kernel == (7, 7):
        return "imagenet"
    if kernel != (3, 3):
        what = f"{weights.where}: its first convolution is {' x '.join(map(str, kernel))}; a ResNet's is 7 x 7 or 3 x 3"
        raise WeightsError(what, remedy=EXPORT)
    known = weights.picked.stem or _stem_of_module(weights.picked.module)
    if known is None:
        unknown = "the file does not say with which stride, or whether a pool follows"
        what = f"{weights.where}: its first convolution is 3 x 3, and {unknown}"
        raise WeightsError(what, remedy=_ASK)
    return known


def _stem_of_module(module: Record | None) -> Stem | None:
    """What a pickled module's own first convolution and pool say."""
    if module is None:
        return None
    inner = {name.rpartition(".")[2]: one for name, one in reversed(modules_of(module).items()) if name.count(".") < 2}
    if "conv1" not in inner:
        return None
    stride = inner["conv1"].__dict__.get("stride")
    pooled = "maxpool" in inner and type(inner["maxpool"]).__name__ != "Identity"
    stems: dict[tuple[object, bool], Stem] = {((1, 1), False): "cifar", ((1, 1), True): "cifar-pool", ((2, 2), False): "small"}
    return stems.get((stride, pooled))


def _form(weights: Weights, base: int, deep: bool) -> Form:
    """The form that the names and shapes of the first block show; `_check` sees whether all others agree."""
    tensors, form = weights.tensors, Form()
    if deep:
        one, two = tensors.get("conv1.0.weight"), tensors.get("conv1.3.weight")
        if one is not None and two is not None and one.ndim == two.ndim == 4 and tuple(one.shape[2:]) == (3, 3):
            form = form._replace(deep=(one.shape[0], two.shape[0]))
    first, second = tensors.get("layer1.0.conv1.weight"), tensors.get("layer1.0.conv2.weight")
    bottleneck = "layer1.0.conv3.weight" in tensors and base > 0
    if bottleneck and first is not None and second is not None and first.ndim == second.ndim == 4:
        groups = first.shape[0] // second.shape[1] if second.shape[1] else 1
        form = form._replace(inner=first.shape[0] / base, groups=max(1, groups))
    return form._replace(pooled="layer2.0.downsample.2.weight" in tensors)


def meta_network(reference: Reference, plan: Variant, arch: str | None = None) -> ResNet | None:
    """The network without memory for its weights; None where no such network can be."""
    try:
        with torch.device("meta"):
            return network(reference, plan, arch)
    except (ValueError, RuntimeError, ZeroDivisionError, OverflowError):
        return None


def _departures(reference: Reference, weights: Weights) -> list[tuple[str, list[str]]]:
    """Each architecture, the recipe's own first, with the names of tensors that it has and these have not, or the other way
    round, or in another shape. Raises WeightsError."""
    shapes = {name: value.shape for name, value in weights.tensors.items() if not name.endswith("num_batches_tracked")}
    kernel = weights.tensors["conv1.weight"].shape[-1] if "conv1.weight" in shapes else 0
    stem: Stem = "imagenet" if kernel == 7 else "small" if kernel == 3 else "deep"  # of its shape, whatever it computes
    bare = msgspec.structs.replace(reference, stem=None, width=None)
    plan = variant_of(msgspec.structs.replace(bare, stem=stem), weights._replace(metadata={}))
    found = []
    for arch in dict.fromkeys((reference.arch or "resnet50", *ARCHITECTURES)):
        model = meta_network(bare, plan, arch)
        if model is not None:
            wanted = {n: v.shape for n, v in model.state_dict().items() if not n.endswith("num_batches_tracked")}
            found.append((arch, [n for n in {**wanted, **shapes} if wanted.get(n) != shapes.get(n)]))
    return found


def guess(reference: Reference, weights: Weights) -> str | None:
    """The architecture whose names and shapes these tensors have, the recipe's own before others. Raises WeightsError."""
    return next((arch for arch, odd in _departures(reference, weights) if not odd), None)


def nearest(reference: Reference, weights: Weights) -> tuple[str, list[str]] | None:
    """The architecture that the tensors have but for a few, and those few; None where none is near. Raises WeightsError."""
    arch, odd = min(_departures(reference, weights), key=lambda one: len(one[1]), default=("", list(weights.tensors)))
    return (arch, odd) if len(odd) <= max(_FEW, len(weights.tensors) // 20) else None


def fitting(reference: Reference, weights: Weights) -> str:
    """The remedy: the architecture whose names and shapes these tensors do fit, if there is one; what they are otherwise."""
    found = guess(reference, weights)
    if found is not None and found != reference.arch:
        return f'They fit arch = "{found}"'
    if found is not None:
        return "They fit without the recipe's `stem` and `width`, or with others"
    near = nearest(reference, weights)
    if near is not None:
        arch, odd = near
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        again = "take the file again, or save it whole: torch.save(model.state_dict(), path)"
        return f"But for {', '.join(odd[:3])}{more} it is a {arch}: {again}"
    names = [name for name in weights.tensors if not name.endswith("num_batches_tracked")]
    depths = [len({name.split(".")[1] for name in names if name.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)]
    known = {arch.depths for arch in ARCHITECTURES.values()}
    if tuple(depths) not in known:
        return f"It has {', '.join(map(str, depths))} blocks, as no ResNet here has. {EXPORT}"
    return EXPORT
