"""Where the snippets of the docs run: a folder with the files that the pages name, small enough for a test.

The pages speak of a user's checkpoint, ONNX file and images. Here they are a thin ResNet-18 whose last layer is fitted, by least
squares, to pictures of ten patterns; so its INT8 engine has something to keep, and a verdict is reached on 600 pictures.
"""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

import toolkit
from tests.shared import made_once, untraced
from toolkit.images.dataset import open_data
from toolkit.recipe import Preprocess
from toolkit.reference.resnet import ResNet

ROOT = Path(__file__).parents[2]
CLASSES = 10
FIXED = 'equalize = "none"\nweights = "absmax"\nbias_correction = false'  # nothing is left to be chosen


def pictures(folder: Path, per_class: int, seed: int) -> Path:
    """Ten patterns of 32 x 32 with noise, `per_class` of each, a folder a class."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32] / 32
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * (1 + label // 2) * (x if label % 2 else y))
        for number in range(per_class):
            pixels = np.stack([wave * ((label + c) % 3 + 1) / 3 for c in range(3)], -1) + random.normal(0, 0.03, (32, 32, 3))
            Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8)).save(folder / f"class{label}" / f"{number}.png")
    return folder


PLAIN = Preprocess(resize=224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # as Ultralytics trains


def thin_resnet(train: Path, how: Preprocess) -> nn.Module:
    """A ResNet-18 of 4 channels with random kernels and a last layer that knows the ten patterns at 224 x 224."""
    torch.manual_seed(0)
    net = ResNet("resnet18", classes=CLASSES, width=4 / 64).eval()
    images = open_data(str(train), how)
    x = torch.from_numpy(np.concatenate(list(images.batches(32))))
    features: list[torch.Tensor] = []
    net.fc.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        net.train()
        net(x)  # the BatchNorms' statistics
        net.eval()
        features.clear()
        net(x)
        a = torch.cat([features[0], torch.ones(len(x), 1)], 1)
        target = 10.0 * nn.functional.one_hot(torch.from_numpy(images.labels), CLASSES).float()
        solved = torch.linalg.lstsq(a.T @ a + 1e-3 * torch.eye(a.shape[1]), a.T @ target).solution
        net.fc.weight.copy_(solved[:-1].T)
        net.fc.bias.copy_(solved[-1])
    return net


def export(net: nn.Module, target: Path) -> None:
    example, free = (torch.zeros(2, 3, 224, 224),), ({0: torch.export.Dim("N")},)
    with untraced():
        torch.onnx.export(net, example, target, dynamo=True, dynamic_shapes=free, external_data=False, verbose=False)


def as_ultralytics(path: Path) -> None:
    """What its export adds to a classifier: a Softmax, and its name in the metadata."""
    model = onnx.load(path)
    (output,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Softmax", [output.name], ["probabilities"], axis=1))
    output.name = "probabilities"
    onnx.helper.set_model_props(model, {"author": "Ultralytics", "task": "classify"})
    onnx.save(model, path)


@pytest.fixture(scope="session")
def stage(common: Path) -> Path:
    """The folder that each page gets a copy of."""
    return made_once(common / "stage", furnish)


def furnish(folder: Path) -> None:
    train, _ = pictures(folder / "images" / "train", 10, 0), pictures(folder / "images" / "val", 60, 1)
    net = thin_resnet(train, Preprocess(resize=256))
    torch.save(net.state_dict(), folder / "my.pth")
    export(net, folder / "my.onnx")
    export(thin_resnet(train, PLAIN), folder / "best.onnx")
    as_ultralytics(folder / "best.onnx")
    (folder / "engines").mkdir()
    for path in (ROOT / "engines").glob("fashion-*.toml"):
        text = path.read_text().replace("images = 512", 'images = 64\nmethod = "mse"')
        text = text.replace("int8 = true", f"int8 = true\n{FIXED}").replace('fashion-test"', 'fashion-test"\nimages = 600')
        (folder / "engines" / path.name).write_text(text)
    recipes = [toolkit.Recipe.load(folder / "engines" / f"fashion-resnet18-{kind}.toml") for kind in ("fp32", "int8")]
    toolkit.build(recipes, out=folder / "engines" / "built")
    toolkit.bench([folder / "engines" / "built" / "fashion-resnet18-fp32"], seconds=1, batches=[1], save=folder / "results.json")
    for name in ("old.json", "new.json"):  # the same run twice: no regression
        shutil.copy(folder / "results.json", folder / name)
    (folder / "pictures").mkdir()
    image = open_data("packaged:fashion-test", Preprocess(size=(28, 28), color="L", mean=(0.0,), std=(1.0,), scale=1.0))
    Image.fromarray(next(iter(image.batches(1)))[0, 0].astype(np.uint8)).save(folder / "pictures" / "boot.png")
    scale = struct.pack(">f", 0.0221).hex()
    (folder / "calibration.cache").write_text(f"TRT-100300-EntropyCalibration2\nx: {scale}\n")


@pytest.fixture
def page_folder(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stage, as the current folder, with `toolkit` on the path."""
    folder = tmp_path / "page"
    shutil.copytree(stage, folder)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "toolkit").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m toolkit "$@"\n')
    (tools / "toolkit").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.chdir(folder)
    return folder
