"""A recipe that says nothing takes what files beside a model say of its pictures, as transformers and timm write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.graph.load.files import write
from toolkit import pipeline
from toolkit.draft import draft
from toolkit.recipe import Recipe
from toolkit.reference.beside import beside
from toolkit.reference.normal import fit_normalization
from toolkit.reference.source import open_source

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
NORMAL = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "scale": 1 / 255, "color": "RGB"}
TOLD: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "ViT": (
        "preprocessor_config.json",
        {**HALF, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 2, "size": {"height": 8, "width": 8}},
        {**NORMAL, "interpolation": "bilinear", "size": (8, 8)},
    ),
    "an older ViT": (
        "preprocessor_config.json",
        {**HALF, "size": 8, "resample": 2},
        {**NORMAL, "interpolation": "bilinear", "size": (8, 8)},
    ),
    "ResNet, by the share of the crop": (
        "preprocessor_config.json",
        {**HALF, "size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
        {**NORMAL, "interpolation": "bicubic", "size": (224, 224), "resize": 256},
    ),
    "a center crop": (
        "preprocessor_config.json",
        {**HALF, "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
        {**NORMAL, "size": (224, 224), "resize": 256},
    ),
    "MobileViT": (
        "preprocessor_config.json",
        {"do_normalize": False, "do_flip_channel_order": True, "size": {"shortest_edge": 288}, "crop_size": 256},
        {"mean": (0.0,) * 3, "std": (1.0,) * 3, "scale": 1 / 255, "color": "BGR", "size": (256, 256), "resize": 288},
    ),
    "EfficientNet, which shifts twice": ("preprocessor_config.json", {**HALF, "rescale_offset": True, "size": 8}, None),
    "timm": (
        "config.json",
        {
            "architecture": "resnet18",
            "pretrained_cfg": {
                "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic"
            },
        },
        {**NORMAL, "interpolation": "bicubic", "size": (224, 224), "resize": 235},
    ),
    "a text model's": ("config.json", {"hidden_size": 768, "id2label": {"0": "a"}}, None),
    "gray": ("preprocessor_config.json", {"image_mean": [0.5], "image_std": [0.5]}, None),
    "broken": ("preprocessor_config.json", {"image_mean": None, "image_std": "x", "size": []}, None),
}  # fmt: skip


def placed(folder: Path, kind: str) -> Path:
    name, held, _ = TOLD[kind]
    (folder / name).write_bytes(msgspec.json.encode(held))
    return folder


@pytest.mark.parametrize("kind", TOLD)
def test_every_key_is_read(tmp_path: Path, kind: str) -> None:
    found = beside(placed(tmp_path, kind) / "model.onnx")
    wanted = TOLD[kind][2]
    assert (found and found.values) == wanted
    inner = beside(tmp_path / "onnx" / "model.onnx")
    assert inner == found


def test_a_recipe_that_says_nothing_takes_it_and_a_draft_writes_it(tmp_path: Path) -> None:
    path = write(placed(tmp_path, "ViT") / "model.onnx")
    trip = pipeline.prepare(Recipe.of(path, size=(8, 8), threads=1))
    assert (trip.recipe.preprocess.mean, trip.recipe.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert any("preprocessor_config.json beside the model says mean = [0.5, 0.5, 0.5]" in remark for remark in trip.remarks)
    assert not any("assumed" in remark for remark in trip.remarks)
    drafted = draft(path)
    assert (drafted.recipe.preprocess.mean, drafted.recipe.assumed) == ((0.5,) * 3, ())
    assert any("preprocessor_config.json" in line for line in drafted.told)
    assert draft(path, mean=[0.1] * 3, std=[1.0] * 3).recipe.preprocess.mean == (0.1,) * 3


def test_a_recipe_that_says_otherwise_is_obeyed_with_a_warning(tmp_path: Path) -> None:
    path = write(placed(tmp_path, "ViT") / "model.onnx")
    said = Recipe.of(path, size=(8, 8), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], color="RGB")
    kept, (warning,) = fit_normalization(said)
    assert kept == said and warning.startswith("WARNING: preprocessor_config.json beside the model says mean = [0.5")
    assert fit_normalization(Recipe.of(path, size=(8, 8), mean=[0.5] * 3, std=[0.5] * 3))[1] == ()


@pytest.mark.parametrize("folder", ["", "onnx"])
def test_names_in_the_config_are_said_not_to_be_used(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    path = write(tmp_path / folder / "model.onnx")
    names = {str(i): name for i, name in enumerate(["ant", "bee", "cat", "dog"])}
    (tmp_path / "config.json").write_bytes(msgspec.json.encode({"id2label": names}))
    said = "the class names in config.json beside the model (`id2label`: ant, bee, cat, dog) are not used"
    notes = open_source(Recipe.of(path, size=(8, 8))).reference.manifest.notes
    assert any(note.startswith(said) for note in notes)
    (tmp_path / "config.json").write_bytes(msgspec.json.encode({"id2label": names | {"4": "eel"}}))
    assert not any("not used" in note for note in open_source(Recipe.of(path, size=(8, 8))).reference.manifest.notes)


def test_a_size_that_the_model_has_stays(tmp_path: Path) -> None:
    path = write(placed(tmp_path, "timm") / "model.onnx")
    found = draft(path).recipe.preprocess
    assert (found.size, found.resize, found.mean, found.interpolation) == ((8, 8), None, (0.5,) * 3, "bicubic")
