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
_HEADS = ("fc", "head", "classifier", "linear", "last_linear")
_OTHERS = (
    "AdaptiveMaxPool2d", "AdaptiveAvgMaxPool2d", "AdaptiveCatAvgMaxPool2d", "CELU", "ELU", "GELU", "Hardswish", "Hardtanh",
    "LeakyReLU", "Mish", "PReLU", "RReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh",
)  # fmt: skip
_STAND_FOR = {
    "ReLU": ("ReLU",),
    "MaxPool2d": ("MaxPool2d",),
    "AdaptiveAvgPool2d": ("AdaptiveAvgPool2d", "AvgPool2d", "FastAdaptiveAvgPool2d", "SelectAdaptivePool2d"),
}
_COMPARED = {
    "Conv2d": ("stride", "padding", "dilation", "groups", "padding_mode"),
    "BatchNorm2d": ("eps",),
    "MaxPool2d": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
}
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
            refuse_signs(weights.where, list(weights.tensors))
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
        _check_head(weights, reference)


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
    """Raise WeightsError where a pickled module's layers compute otherwise than the network's of the same name: convolutions that
    step or spread, other activations, another pool. What has no weights shows in a whole module alone."""
    theirs = _inner(module)
    for name, ours in model.named_modules():
        record = theirs.get(name)
        if record is None or list(ours.children()):
            continue
        held, kind = record.__dict__, type(record).__name__
        if isinstance(ours, (nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d)) and kind not in _STAND_FOR[type(ours).__name__]:
            raise WeightsError(f"{where}: '{name}' is {kind}, a ResNet's is {type(ours).__name__}", remedy=EXPORT)
        for key in _COMPARED.get(type(ours).__name__, ()):
            if key in held and hasattr(ours, key) and not _same(held[key], getattr(ours, key)):
                what = f"{where}: '{name}' has {key} {held[key]}, a ResNet's has {getattr(ours, key)}"
                raise WeightsError(what, remedy=EXPORT)
    for name, record in theirs.items():
        kind = type(record).__name__
        if kind in _OTHERS and name.partition(".")[0] not in _HEADS:
            raise WeightsError(f"{where}: '{name}' is {kind}, which a ResNet has not", remedy=EXPORT)


def _check_head(weights: Weights, reference: Reference) -> None:
    """Raise WeightsError where a pickled module's classifier ends in what changes its answer's meaning, and nobody said which."""
    module = weights.picked.module
    for name, record in _inner(module).items() if module is not None else ():
        kind = type(record).__name__
        if name.partition(".")[0] not in _HEADS or kind not in _OTHERS or reference.outputs_are is not None:
            continue
        what = f"{weights.where}: '{name}' is {kind}, and what follows the last layer with weights is left out"
        remedy = 'Write outputs_are = "multilabel-logits" in [reference], or "binary-logit" for one column'
        raise WeightsError(what, remedy=remedy if kind == "Sigmoid" else EXPORT)


def _inner(module: Record) -> dict[str, Record]:
    """The modules of the network by its own names: without what wraps it, and what lies beside it."""
    theirs = modules_of(module)
    wraps = next((name.removesuffix("layer1") for name in theirs if name == "layer1" or name.endswith(".layer1")), "")
    return {name.removeprefix(wraps): one for name, one in theirs.items() if name.startswith(wraps)}


def _same(theirs: object, ours: object) -> bool:
    """2 and (2, 2) are the same step."""
    one, other = (value if isinstance(value, tuple) else (value, value) for value in (theirs, ours))
    return one == other
