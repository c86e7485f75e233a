"""From a checkpoint and a folder as people have them to an engine: it is right, and its manifest keeps what was chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from toolkit.engine.engine import load
from toolkit.images.dataset import open_data
from toolkit.orders import build_all
from toolkit.recipe import Accept, Build, Calibration, Precision, Preprocess, Recipe, Reference
from toolkit.reference.resnet import Form, ResNet
from toolkit.reference.weights import randomize

HOW = Preprocess(size=(32, 32))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth noise in folders 0, 2 and 10, with what a file manager left."""
    root = tmp_path_factory.mktemp("val")
    random = np.random.default_rng(0)
    for label in (0, 2, 10):
        (root / str(label)).mkdir()
        for index in range(8):
            coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(coarse).resize((40, 40)).save(root / str(label) / f"{index}.png")
    (root / "@eaDir").mkdir()
    (root / "0" / "notes.txt").write_text("x")
    return root


def test_a_resnet_d_and_a_littered_folder_become_an_int8_engine(tmp_path: Path, photographs: Path) -> None:
    model = randomize(ResNet("resnet18", classes=11, width=0.25, stem="deep", form=Form(pooled=True, deep=(8, 8))), 1, 3)
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pth")
    recipe = Recipe(
        name="d",
        reference=Reference(arch="resnet18", weights=str(tmp_path / "w.pth")),
        preprocess=HOW,
        precision=Precision(int8=True),
        calibration=Calibration(data=str(photographs)),
        accept=Accept(data=str(photographs), max_top1_drop=100, min_agreement=0),
        build=Build(threads=1, spin=False),
    )
    ((folder, manifest),) = build_all([recipe], None, tmp_path / "out")
    said = " / ".join(manifest.notes)
    assert "the prefix `model.` was taken off every name" in said
    assert "whole numbers, which are taken as the labels" in said
    assert "left out 1 '.txt', 1 hidden or left by a file manager" in said
    data = open_data(str(photographs), HOW)
    images = np.concatenate(list(data.batches(8)))
    with load(folder) as runner:
        answers = runner(images)
    right = answers_of(model, images)
    noise = 10 * np.log10((right**2).mean() / ((answers - right) ** 2).mean())
    assert noise > 18, f"{noise:.1f} dB"
    assert set(data.labels.tolist()) == {0, 2, 10}


def answers_of(model: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        result: Tensor = model(torch.from_numpy(images))
    return result.numpy()
