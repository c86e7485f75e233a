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
from toolkit.pipeline import build_all
from toolkit.recipe import Accept, Build, Calibration, Precision, Preprocess, Recipe, Reference
from toolkit.reference.resnet import Form, ResNet, Stem
from toolkit.reference.weights import randomise

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


# Random weights lose in 50 layers of INT8 what a trained network keeps (10 dB, whatever the form): those are built in FP32.
FORMS: dict[str, tuple[str, Stem, Form, bool, float]] = {
    "D": ("resnet18", "deep", Form(pooled=True, deep=(8, 8)), True, 18),
    "wide and grouped": ("resnet50", "small", Form(inner=2.0, groups=4), False, 80),
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_becomes_an_engine(tmp_path: Path, photographs: Path, kind: str) -> None:
    arch, stem, form, int8, decibels = FORMS[kind]
    model = randomise(ResNet(arch, classes=11, width=0.25, stem=stem, form=form), 1, 3)
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pth")
    recipe = Recipe(
        name=kind.partition(" ")[0],
        reference=Reference(arch=arch, weights=str(tmp_path / "w.pth"), stem=None if stem == "deep" else stem),
        preprocess=HOW,
        precision=Precision(int8=int8),
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
    assert noise > decibels, f"{noise:.1f} dB"
    assert set(data.labels.tolist()) == {0, 2, 10}


def answers_of(model: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        result: Tensor = model(torch.from_numpy(images))
    return result.numpy()
