from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import toolkit
from tests.serve.serving import Server
from toolkit.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "engines"
QUICK = ("--max-batch", "8", "--max-wait-ms", "1")  # the sweep has a test of its own


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two engines of one contract, `fp32` and `fp16`."""
    folder = tmp_path_factory.mktemp("engines")
    for kind in ("fp32", "fp16"):
        recipe = msgspec.structs.replace(Recipe.load(RECIPES / f"fashion-resnet18-{kind}.toml"), name=kind)
        toolkit.build(recipe, out=folder, proof=False)
    return folder


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(64, 1, 28, 28)).astype(np.float32)


@pytest.fixture(scope="session")
def offline(engines: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """What each engine answers to `images` where no server is."""
    found = {}
    for kind in ("fp32", "fp16"):
        with toolkit.load(engines / kind, threads=1) as runner:
            found[kind] = runner(images)
    assert not np.array_equal(found["fp32"], found["fp16"]), "a swap could not be told"
    return found


@pytest.fixture(scope="module")
def server(engines: Path) -> Iterator[Server]:
    with Server(f"net@1={engines / 'fp16'}", f"net@3={engines / 'fp32'}", f"half={engines / 'fp16'}", *QUICK) as running:
        yield running
        assert running.stop() == 0
