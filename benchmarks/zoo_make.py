"""Makes one network of the zoo: `python zoo_make.py NAME IMAGES OUT.onnx`, in the environment that its source needs.

Weights are random, but not blank: what an initializer leaves at nothing (a zero head, a LayerScale of 1e-6, the last BatchNorm
of a block) is drawn too, BatchNorm's statistics are those of photographs, and the last layer is fitted to tell the photographs
apart by ridge regression. BatchNorm's biases lie around 1: around 0 a deep network of random weights is chaotic, and amplifies
what any tool rounds some hundred times. All that proves the plumbing; what INT8 costs trained weights it cannot tell.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from zoo_networks import Network, networks

CLASSES, SURE = 6, 10.0  # SURE: what a fitted logit of the right class aims at, with 0 for the others
MILD = 1.0  # the mean of a norm's biases: most of a ReLU's inputs are then above 0
_LIBRARIES: list[Any] = []  # declarations last as long as the object that made them
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def torchvision() -> Any:
    """torchvision's models, also beside a torch of another build, where its compiled operators do not load."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    assert spec is not None and spec.origin is not None
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        source = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
        library = torch.library.Library("torchvision", "DEF")
        _LIBRARIES.append(library)
        for name in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', source)):
            library.define(f"{name}(Tensor x) -> Tensor")
        import torchvision
    return torchvision


def pytorch_model(net: Network) -> Any:
    """The module, with random weights as its library draws them."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if net.source == "timm":
        torchvision()
        import timm

        return timm.create_model(net.model, num_classes=CLASSES)
    models = torchvision().models
    side = net.size[0]
    if net.source == "thin":
        from torchvision.models.resnet import Bottleneck, ResNet

        return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, width_per_group=8)
    if net.model == "vit_tiny":
        return models.VisionTransformer(side, 8, 6, 3, 192, 768, num_classes=CLASSES)
    if net.model == "swin_mini":  # three stages of two blocks: both kinds of window, and both mergers of patches
        return models.SwinTransformer([4, 4], 48, [2, 2, 2], [2, 4, 8], [4, 4], num_classes=CLASSES)
    model = getattr(models, net.model)(weights=None, num_classes=CLASSES, **net.options)
    if net.model.startswith("vgg"):  # its first Linear is 100 M weights at 7 x 7; these images end at 2 x 2
        model.avgpool, model.classifier = (
            nn.Identity(),
            nn.Sequential(nn.Linear(512 * (side // 32) ** 2, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, CLASSES)),
        )
    if net.model == "alexnet":
        model.avgpool, model.classifier[1] = nn.Identity(), nn.Linear(256 * 4, 4096)
    return model


def draw(model: Any) -> None:
    """Give every parameter that an initializer left flat (0, 1 or a tiny scale) values of its own."""
    import torch
    from torch import nn

    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, norms) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                if module.bias is not None:
                    module.bias.normal_(MILD, 0.2)
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.min() == parameter.max():
                if parameter.abs().max() < 1e-3:
                    parameter.normal_(0, 0.05)
                else:
                    parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))


def warm(model: Any, images: Any) -> None:
    """BatchNorm's statistics become those of `images` [n, 3, H, W]; nothing else is in training mode."""
    import torch
    from torch import nn

    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    with torch.no_grad():
        for part in images.split(32):
            model(part)
    model.eval()


def fit(model: Any, images: Any, labels: np.ndarray) -> None:
    """Set the last layer by ridge regression of the labels on what reaches it: a Linear, or SqueezeNet's 1x1 convolution, whose
    results are pooled. A model that ends otherwise stays as it is."""
    import torch
    from torch import nn

    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if len(layers[-1].weight) != CLASSES:
        return
    seen: list[Any] = []
    hook = layers[-1].register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    with torch.no_grad():
        for part in images.split(32):
            model(part)
    hook.remove()
    features = torch.cat(seen).double()
    if features.ndim == 4:
        features = features.mean((2, 3))
    if features.ndim != 2:
        return
    weight, bias = ridge(features.numpy(), labels)
    with torch.no_grad():
        layers[-1].weight.copy_(torch.from_numpy(weight.T).reshape(layers[-1].weight.shape))
        if layers[-1].bias is not None:
            layers[-1].bias.copy_(torch.from_numpy(bias))


def ridge(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [n, d], int64 [n] -> weight [d, CLASSES] and bias [CLASSES] of least squares with a penalty, in its dual form."""
    target = SURE * np.eye(CLASSES)[labels]
    mean = features.mean(0)
    centered = features - mean
    penalty = 1e-2 * (centered**2).sum() / len(features) * np.eye(len(features))
    weight = centered.T @ np.linalg.solve(centered @ centered.T + penalty, target - target.mean(0))
    return weight, target.mean(0) - mean @ weight


def by_torch(net: Network, folder: Path, out: Path) -> None:
    """A torchvision or timm model, by one of torch's two exporters."""
    import torch

    pixels = np.load(folder / f"fit-{net.size[0]}.npy").astype(np.float32) / 255
    images = torch.from_numpy(((pixels - MEAN) / STD).transpose(0, 3, 1, 2).copy())
    model = pytorch_model(net)
    draw(model)
    warm(model, images)
    fit(model, images, np.load(folder / "fit-labels.npy"))
    export(model, images.numpy(), out, net.writer, net.opset)
    if "beyond 2 GiB" in net.writer:
        spread(out)


def spread(out: Path, start: int = (2 << 30) + 4096) -> None:
    """Move the weights to a file beside, behind so many bytes of nothing, a hole on the disk that reads as zeros."""
    import onnx
    from onnx.external_data_helper import set_external_data

    model, data = onnx.load(str(out)), out.with_name(f"{out.name}.data")
    with data.open("wb") as file:
        file.truncate(start)
        file.seek(start)
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) >= 1024:
                set_external_data(tensor, data.name, offset=file.tell(), length=len(tensor.raw_data))
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
    out.write_bytes(model.SerializeToString())


def export(model: Any, images: Any, out: Path, writer: str, opset: int | None = None) -> None:
    """Write `model` by one of torch's exporters; where `writer` ends in `batch 1` it is fixed, torch's default."""
    import torch

    example = torch.from_numpy(images[: 1 if writer.endswith("batch 1") else 2])
    named: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    if opset is not None:
        named["opset_version"] = opset
    if writer.startswith("torchscript"):
        axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(model, (example,), str(out), dynamo=False, dynamic_axes=axes, **named)
    else:
        free = None if writer.endswith("batch 1") else ({0: torch.export.Dim("batch")},)
        torch.onnx.export(model, (example,), str(out), dynamo=True, dynamic_shapes=free, verbose=False, **named)


def by_keras(net: Network, folder: Path, out: Path) -> None:
    """A model of keras.applications; keras hands it to tf2onnx."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    keras.utils.set_random_seed(0)
    side, images = net.size[0], np.load(folder / f"fit-{net.size[0]}.npy").astype(np.float32) / 127.5 - 1
    make = getattr(keras.applications, net.model)
    extra = {"include_preprocessing": False} if net.model.startswith(("MobileNetV3", "ConvNeXt")) else {}
    model = make(weights=None, input_shape=(side, side, 3), classes=CLASSES, **extra)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the statistics of the one batch that follows
            layer.beta.assign(np.random.default_rng(0).normal(MILD, 0.2, layer.beta.shape))
    model(images, training=True)
    head = model.layers[-1]
    if isinstance(head, keras.layers.Dense):
        features = keras.Model(model.inputs, head.input)(images, training=False)
        head.set_weights(ridge(np.asarray(features, np.float64), np.load(folder / "fit-labels.npy")))
    model.export(str(out), format="onnx", verbose=False, **({"opset_version": net.opset} if net.opset else {}))


def by_copy(net: Network, out: Path) -> None:
    """A file that came inside a package, with its external data where it has any."""
    if net.source == "onnx":
        import onnx

        found = Path(onnx.__file__).parent / f"backend/test/data/light/light_{net.model}.onnx"
    else:
        found = next(path for entry in sys.path if (path := Path(entry) / net.options["file"]).is_file())
    shutil.copy(found, out)
    data = found.with_name(found.name + ".data")
    if data.is_file():
        shutil.copy(data, out.with_name(data.name))


def main() -> None:
    name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    net = next(net for net in networks() if net.name == name)
    if net.source in ("onnx", "wheel"):
        by_copy(net, out)
    elif net.source == "keras":
        by_keras(net, folder, out)
    else:
        by_torch(net, folder, out)


if __name__ == "__main__":
    main()
