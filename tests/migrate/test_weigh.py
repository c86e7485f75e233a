"""Old scales against new: the decision, and a cache whose scales ruin a network that new ones do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.migrate.test_migrate import write_cache, write_onnx
from toolkit.cli.main import app
from toolkit.migrate.weigh import decide
from toolkit.recipe import Recipe
from toolkit.reference.source import open_source


def test_images_decide_first_then_decibels_and_old_scales_win_a_draw() -> None:
    assert decide(1, 9, 0.02, (-3.0, 0.1))[0] == "new"
    assert decide(9, 1, 0.02, (9.0, 0.1))[0] == "old"
    assert decide(1, 2, 1.0, (0.3, 0.1))[0] == "new"
    for gain in ((0.1, 0.01), (3.0, 2.0), (-5.0, 0.1), (0.0, 0.0)):
        assert decide(1, 2, 1.0, gain)[0] == "old"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx, and 96 images as a file of an array."""
    folder = tmp_path_factory.mktemp("weigh")
    write_onnx(folder / "net.onnx")
    images = np.random.default_rng(0).normal(size=(96, 3, 16, 16)).astype(np.float32)
    np.save(folder / "images.npy", images)
    return folder


def scales_of(place: Path, factor: float) -> dict[str, float]:
    """The scale of every tensor by its largest value on the images, times a factor."""
    from toolkit.graph.magnitude import magnitudes

    recipe = Recipe.parse(f'name = "n"\n[reference]\nonnx = "{place / "net.onnx"}"\n[preprocess]\nsize = [16, 16]\n')
    graph = open_source(recipe).graph
    images = np.load(place / "images.npy")
    found = magnitudes(graph, [images])
    found[graph.graph.inputs[0].name or ""] = float(np.abs(images).max())
    return {name: factor * value / 127 for name, value in found.items() if value > 0}


def run(place: Path, factor: float) -> dict[str, object]:
    cache = write_cache(place / "old.cache", scales_of(place, factor))
    words = [cache, "--onnx", place / "net.onnx", "--data", place / "images.npy", "-o", place / "new.toml", "--json"]
    done = CliRunner().invoke(app, ["migrate", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_scales_that_ruin_the_network_lose_and_the_recipe_of_the_new_ones_is_written(place: Path) -> None:
    told = run(place, 30.0)
    scales = told["scales"]
    assert isinstance(scales, dict) and scales["keep"] == "new" and scales["gain"][0] > 10
    assert told["recalibrated"] == str(place / "new-recalibrated.toml")
    recipe = Recipe.load(place / "new-recalibrated.toml")
    assert recipe.calibration.ranges is None and recipe.calibration.method == "auto" and recipe.precision.equalize == "auto"


def test_scales_that_hold_just_what_there_is_stay(place: Path) -> None:
    (place / "new-recalibrated.toml").unlink(missing_ok=True)
    told = run(place, 1.0)
    scales = told["scales"]
    assert isinstance(scales, dict) and scales["old"]["images"] == scales["new"]["images"] > 0
    assert (told["recalibrated"] is None) == (scales["keep"] == "old") == (not (place / "new-recalibrated.toml").exists())
