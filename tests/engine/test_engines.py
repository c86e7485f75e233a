"""Every recipe in engines/ becomes real TensorRT engines for three GPUs that are not here."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from toolkit import orders
from toolkit.engine.engine import Engine
from toolkit.manifest import Manifest
from toolkit.recipe import Recipe, Reference
from toolkit.reference.weights import load_reference

pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")

ENGINES = Path(__file__).parents[2] / "engines"
TARGETS = "rtx:sm86,sm89,sm120"
IMAGENET = sorted(ENGINES.glob("imagenet-*.toml"))
PACKAGED = sorted(set(ENGINES.glob("*.toml")) - set(IMAGENET))


def built(recipes: list[Recipe], out: Path, *, proof: bool) -> tuple[dict[str, list[Manifest]], list[str]]:
    """The manifests of each recipe's engines, read back from what lies in `out`, and the stages of the work."""
    stages: list[str] = []

    def stage(what: str):
        stages.append(what)
        return lambda done, total: None

    found: dict[str, list[Manifest]] = {recipe.name: [] for recipe in recipes}
    for folder, _ in orders.build_all(recipes, TARGETS, out, stage, proof=proof):
        manifest = Engine.open(folder).manifest
        assert folder.name == f"{manifest.name}-{manifest.target.replace(':', '-')}"
        found[manifest.name].append(manifest)
    return found, stages


def check(recipe: Recipe, manifests: list[Manifest]) -> None:
    """An engine for each SM, of the precision that the recipe asks for: INT8 in every layer that was quantized."""
    assert [manifest.target for manifest in manifests] == ["rtx:sm86", "rtx:sm89", "rtx:sm120"]
    assert [manifest.settings["sm"] for manifest in manifests] == [86, 89, 120]
    counts = [re.match(r"(\d+) of (\d+) INT8 layers", note) for manifest in manifests for note in manifest.notes]
    if recipe.precision.int8:
        assert [m[1] == m[2] and int(m[1]) > 15 for m in counts if m] == [True] * 3
    else:
        assert not any(counts)


def fewer(recipe: Recipe) -> Recipe:
    return msgspec.structs.replace(recipe, calibration=msgspec.structs.replace(recipe.calibration, images=16))


@pytest.mark.slow
def test_the_packaged_models_recipes(tmp_path: Path) -> None:
    assert len(PACKAGED) == 6
    recipes = [fewer(Recipe.load(path)) for path in PACKAGED]
    found, _ = built(recipes, tmp_path, proof=False)
    for recipe in recipes:
        check(recipe, found[recipe.name])


def test_one_proof_serves_all_that_share_a_graph(tmp_path: Path) -> None:
    recipe = Recipe.load(ENGINES / "fashion-resnet18-int8.toml")
    recipe = msgspec.structs.replace(recipe, accept=msgspec.structs.replace(recipe.accept, images=1000, max_top1_drop=5.0))
    found, stages = built([recipe], tmp_path, proof=True)
    assert len([stage for stage in stages if stage.startswith("judge")]) == 1
    verdicts = {manifest.notes[-2] for manifest in found[recipe.name]}
    assert len(verdicts) == 1 and verdicts.pop().startswith("same within 5 points")


def photographs(folder: Path) -> None:
    """A few JPEG files, smooth as photographs are, in three of ImageNet's class folders."""
    random = np.random.default_rng(len(folder.name))
    for wnid in ("n01440764", "n01443537", "n03888257"):
        (folder / wnid).mkdir(parents=True)
        for index in range(2):
            grain = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
            grain.resize((320, 280), Image.Resampling.BICUBIC).save(folder / wnid / f"{index}.JPEG", quality=90)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> list[Recipe]:
    """The recipes as they are, but that their weights are a file of torchvision's layout (tests/reference/test_resnet.py shows
    that ours is torchvision's, name by name) and the pictures beside them are a few."""
    root = tmp_path_factory.mktemp("imagenet")
    for part in ("train", "val"):
        photographs(root / "data" / "imagenet" / part)
    model = load_reference(Reference(arch="resnet50", weights="random:0"))
    torch.save(model.state_dict(), root / "resnet50-of-torchvision.pth")
    (root / "engines").mkdir()
    recipes = []
    for path in IMAGENET:
        text, count = re.subn(r'"torchvision:\w+"', f'"{root / "resnet50-of-torchvision.pth"}"', path.read_text())
        assert count == 1
        (root / "engines" / path.name).write_text(text)
        recipes.append(Recipe.load(root / "engines" / path.name))
    return recipes


@pytest.mark.slow
def test_the_imagenet_recipes(imagenet: list[Recipe], tmp_path: Path) -> None:
    assert [recipe.precision.int8 for recipe in imagenet] == [False, True]
    found, _ = built(imagenet, tmp_path, proof=False)
    for recipe in imagenet:
        check(recipe, found[recipe.name])
        for manifest in found[recipe.name]:
            assert (manifest.inputs[0].shape, manifest.outputs[0].shape) == (("N", 3, 224, 224), ("N", 1000))
            assert len(manifest.classes) == 1000
