"""What gives away a network that has some of a ResNet's names and is another function: refused by what it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from toolkit.errors import WeightsError

EXPORT = (
    "Export it: torch.onnx.export(model.eval(), (torch.zeros(1, 3, 224, 224),), 'model.onnx', dynamo=True), "
    'and write onnx = "model.onnx" in [reference]'
)
_SIGNS = (  # a pattern of a tensor's name, and what has it
    (r"(^|\.)filt$", "an antialiased ResNet (blur pooling)"),
    (r"\.(se|se_module|sse|cse)\.", "a ResNet with squeeze-and-excitation or channel attention"),
    (r"\.(ca|sa|cbam|ChannelGate|SpatialGate)\.", "a ResNet with CBAM attention"),
    (r"(^|\.)attnpool\.|^visual\.", "CLIP's ResNet, which pools by attention"),
    (r"(^|\.)(q_proj|k_proj|qkv|attn|self_attn)\.", "a transformer, or a ResNet with attention"),
    (r"_packed_params|\.(scale|zero_point)$|activation_post_process|weight_fake_quant", "a quantized network of torch.ao"),
    (r"(^|\.)mask_head|roi_heads|rpn\.|^backbone\.fpn|\.fpn\.", "a detector"),
    (r"(^|\.)aux_classifier\.|^decode_head\.|(^|\.)aspp\.", "a segmentation network, whose backbone is dilated"),
    (r"^stem\.conv1\.norm\.|^backbone\.bottom_up\.|(^|\.)res2\.0\.conv1\.", "Detectron2's backbone"),
    (r"stages\.0\.blocks\.0\.(norm1|conv1)\.|block1\.unit01|root\.conv", "a ResNetV2 (pre-activation, such as BiT)"),
    (r"denseblock|denselayer", "a DenseNet"),
    (r"stages\.0\.blocks\.0\.conv_dw|stages\.0\.0\.dwconv", "a ConvNeXt"),
    (r"(^|\.)4\.0\.conv1\.weight$", "a ResNet's children in an nn.Sequential, whose names are numbers"),
    (r"^features\.\d+\.", "a network of torchvision's `features` kind (VGG, MobileNet, EfficientNet and others)"),
    (r"(^|\.)patch_embed|(^|\.)cls_token|encoder_layer_\d", "a vision transformer"),
)
_REPARAMETRIZED = (  # as _SIGNS, with the line that puts the plain weight back
    (r"weight_orig$", "pruned by a mask", "torch.nn.utils.prune.remove(module, 'weight')"),
    (r"weight_g$", "weight-normalized", "torch.nn.utils.remove_weight_norm(module)"),
    (r"parametrizations\.", "parametrized", "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"),
)
# Functions that differ without a tensor that shows it: only a name does.
_NAMED = re.compile(r"resnet(blur|aa)|antialias|blurpool|dilat|\bdrn|preact", re.IGNORECASE)


_FRAMEWORKS = (  # of classes that a pickle names, whose models their own code exports
    ("ultralytics.", "Ultralytics'", "Export it: yolo export model={where} format=onnx; then write onnx = FILE in [reference]"),
    (
        "fastai.",
        "fastai's",
        "Take the network out, in Python: torch.save(fastai.learner.load_learner('{where}').model.state_dict(), 'weights.pth')",
    ),
)


def refuse_framework(where: str, classes: Sequence[str]) -> None:
    """Raise WeightsError where a pickle holds an object of a framework that exports its models itself."""
    for prefix, whose, line in _FRAMEWORKS:
        if found := next((name for name in classes if name.startswith(prefix)), None):
            raise WeightsError(f"{where} holds {whose} {found.rpartition('.')[2]}", remedy=line.format(where=where))


def refuse_foreign(where: str, names: Sequence[str]) -> NoReturn:
    """Raise WeightsError: what has these tensor names, as far as it is known."""
    refuse_signs(where, names)
    shown = ", ".join(list(names)[:3])
    raise WeightsError(f"{where} is not a ResNet by torchvision's names: it has {shown}, ...", remedy=EXPORT)


def refuse_signs(where: str, names: Sequence[str]) -> None:
    """Raise WeightsError where a name belongs to another function."""
    for pattern, what, line in _REPARAMETRIZED:
        if found := next((name for name in names if re.search(pattern, name)), None):
            raise WeightsError(
                f"{where} is {what}: it has '{found}'", remedy=f"Run {line} on each such module, then save the state dict"
            )
    for pattern, what in _SIGNS:
        if found := next((name for name in names if re.search(pattern, name)), None):
            raise WeightsError(f"{where} is {what}: it has '{found}'", remedy=EXPORT)


def refuse_named(where: str, words: Sequence[str]) -> None:
    """Raise WeightsError where what the file says of itself, or its name, is a function that its tensors do not show."""
    for word in words:
        if _NAMED.search(word):
            what = f"{where} calls itself '{word}', which has a plain ResNet's tensors and computes something else"
            raise WeightsError(what, remedy=EXPORT)
