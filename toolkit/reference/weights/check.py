"""Whether the tensors of a file are those that the network wants: all there, of its shapes, plain finite numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.errors import WeightsError
from toolkit.recipe import Reference
from toolkit.reference.resnet import ResNet
from toolkit.reference.weights.records import Record, modules_of
from toolkit.reference.weights.refusals import EXPORT, refuse_signs
from toolkit.reference.weights.shapes import Variant, Weights, fitting, meta_network

_PLAIN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_EARLIER = "Use an earlier checkpoint"


def check(reference: Reference, plan: Variant, weights: Weights) -> None:
    """Raise WeightsError at the first tensor that is missing, of another shape or type, not finite, or one too many."""
    model = meta_network(reference, plan)
    if model is None:
        raise WeightsError(f"{weights.where} has shapes that a ResNet does not have", remedy=EXPORT)
    wanted = model.state_dict()
    if "bn1.weight" in weights.tensors and "bn1.running_mean" not in weights.tensors:
        what = f"{weights.where} has norms without running statistics: GroupNorm or the like, and no BatchNorm"
        raise WeightsError(what, remedy=EXPORT)
    for name, value in wanted.items():
        found = weights.tensors.get(name)
        if found is None:
            if name.endswith("num_batches_tracked"):  # older files lack it; inference does not read it
                continue
            refuse_signs(weights.where, list(weights.tensors))
            raise WeightsError(f"{weights.where} has no tensor '{name}'", remedy=fitting(reference, weights))
        if found.shape != value.shape:
            what = f"{weights.where}: '{name}' has the shape {list(found.shape)}, the network wants {list(value.shape)}"
            raise WeightsError(what, remedy=fitting(reference, weights))
        if not name.endswith("num_batches_tracked"):
            _check_values(weights.where, name, found)
    extra = next((name for name in weights.tensors if name not in wanted), None)
    if extra is not None:
        refuse_signs(weights.where, list(weights.tensors))
        what = f"{weights.where} has a tensor '{extra}' that the network does not know"
        raise WeightsError(what, remedy=fitting(reference, weights))
    if weights.picked.module is not None:
        _check_module(weights.where, weights.picked.module, model)


def _check_values(where: str, name: str, found: Tensor) -> None:
    """Raise WeightsError where a tensor is not made of finite floating-point numbers that lie in the file."""
    kind = str(found.dtype).removeprefix("torch.")
    if found.is_meta:
        what = "is on the meta device: the file holds its shape and no values"
        remedy = "Save the model after its weights were loaded"
    elif found.is_quantized or "float8" in kind or "float4" in kind or found.dtype in (torch.int8, torch.uint8):
        what = f"is {kind}: quantized, and its scales are not a ResNet's"
        remedy = "Use the weights from before quantization; INT8 and FP8 are made here, from those"
    elif found.dtype not in _PLAIN:
        what, remedy = f"is {kind}", f"Weights are {', '.join(str(dtype).removeprefix('torch.') for dtype in _PLAIN)}"
    elif found.layout != torch.strided:
        what, remedy = "is sparse", "Save it dense: {name: tensor.to_dense() for name, tensor in state_dict.items()}"
    elif found.untyped_storage().nbytes() < found.numel() * found.element_size():
        what, remedy = "is larger than its data: a view that repeats it", "Save each tensor as .contiguous()"
    elif not torch.isfinite(found.float()).all():
        what, remedy = "holds NaN or infinity", _EARLIER
    elif name.endswith("running_var") and (found < 0).any():
        what, remedy = "holds a negative variance", _EARLIER
    else:
        return
    raise WeightsError(f"{where}: '{name}' {what}", remedy=remedy)


def _check_module(where: str, module: Record, model: ResNet) -> None:
    """Raise WeightsError where a pickled module's convolutions step or spread otherwise than the network's of the same name."""
    theirs = {name: one.__dict__ for name, one in modules_of(module).items()}
    wraps = next((name.removesuffix("layer1") for name in theirs if name == "layer1" or name.endswith(".layer1")), "")
    for name, ours in model.named_modules():
        held = theirs.get(wraps + name)
        if held is None or not isinstance(ours, (nn.Conv2d, nn.BatchNorm2d)):
            continue
        for key in ("stride", "padding", "dilation", "groups", "eps"):
            if key in held and hasattr(ours, key) and held[key] != getattr(ours, key):
                what = f"{where}: '{name}' has {key} {held[key]}, a ResNet's has {getattr(ours, key)}"
                raise WeightsError(what, remedy=EXPORT)
