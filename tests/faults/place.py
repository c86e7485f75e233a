"""A small place to work in: a network of ten nodes, its pictures, a recipe; and the commands that are made to fail there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.fuzz.foreign import models
from toolkit.calibration.ranges import Ranges
from toolkit.engine.engine import Engine
from toolkit.recipe import Recipe

RECIPE = """name = "net"
[reference]
onnx = "model.onnx"
[preprocess]
size = [8, 8]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
scale = 0.00392156862745098
color = "RGB"
[precision]
int8 = true
[calibration]
data = "images"
method = "minmax"
[build]
batch = [1, 2, 4]
threads = 1
spin = false
[accept]
min_agreement = 0.0
"""


class Command(NamedTuple):
    """`output` is what it writes, which `read` opens as whoever uses it would, and gives back as something to compare.

    `first` leaves something else in its place, where there is such a command; else what stands there is what it writes itself.
    """

    words: tuple[str, ...]
    output: str
    read: Callable[[Path], object]
    first: tuple[str, ...] | None = None

    @property
    def before(self) -> Command:
        """What lays down what stands there before."""
        return self if self.first is None else self._replace(words=self.first)


def _engine(path: Path) -> object:
    engine = Engine.open(path)
    engine.inspect()
    return {name: data for name, data in engine.contents.items() if name.endswith(".onnx") or name.startswith("ranges")}


def _recipe(path: Path) -> object:
    """Which of several graphs of one speed a search prefers, the clock decides: what all winners have in common."""
    recipe = Recipe.load(path)
    return recipe.name, recipe.reference, recipe.preprocess, recipe.accept


COMMANDS = {
    "build": Command(("build", "r.toml", "-o", "built"), "built/net", _engine),
    "calibrate": Command(("calibrate", "r.toml", "-o", "out/ranges.json"), "out/ranges.json", Ranges.read),
    "swap": Command(("build", "r.toml", "-o", "built"), "built/net", _engine, ("build", "other.toml", "-o", "built")),
    "tune": Command(("tune", "tune.toml", "-o", "out/t.toml", "--limit", "12", "--targets", "cpu"), "out/t.toml", _recipe),
    "pack": Command(("pack", "made/net", "-o", "out/net.engine"), "out/net.engine", _engine),
}


def lay_out(place: Path) -> None:
    """The network, 24 pictures of noise, the recipe, and empty folders for output, cache and temporary files."""
    for name in ("images", "built", "out", "cache", "tmp", "home"):
        (place / name).mkdir(parents=True)
    (place / "model.onnx").write_bytes(models()[0])
    noise = np.random.default_rng(0)
    for index in range(24):
        Image.fromarray(noise.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(place / f"images/{index:02}.png")
    (place / "r.toml").write_text(RECIPE)
    (place / "other.toml").write_text(RECIPE.replace("int8 = true", 'compute = "fp16"'))
    (place / "tune.toml").write_text(RECIPE.replace("[accept]", '[accept]\ndata = "images"'))


def environment(place: Path) -> dict[str, str]:
    """Nothing of this user's: every file that a command leaves is in the place."""
    folders = {"XDG_CACHE_HOME": "cache", "TMPDIR": "tmp", "HOME": "home"}
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **threads, **{name: str(place / folder) for name, folder in folders.items()}}


def clear(place: Path) -> None:
    """As before the first command, but for what it was given."""
    for name in ("built", "out", "cache", "tmp"):
        for entry in (place / name).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def litter(place: Path) -> list[str]:
    """What should not be there once a good command has ended: drafts, half files, temporary folders."""
    found = [path for name in ("built", "out", "cache") for path in (place / name).rglob("*")]
    left = [path for path in found if "draft" in path.name or ".partial" in path.name or path.name.endswith((".old", ".next"))]
    return sorted(str(path.relative_to(place)) for path in (*left, *(place / "tmp").iterdir()))


def wrong(place: Path, command: Command, code: int, said: str, allowed: list[object]) -> str | None:
    """What is wrong after a command ended with `code` (negative: by a signal), having `said` that; None where all is well.

    Its output is one of `allowed`: as it was before (None: not there), or as a good run leaves it; where it ended well, the last.
    """
    if "Traceback" in said or "internal error" in said:
        return f"exit {code}: {said[-600:]}"
    if code > 0 and (code != 2 or "error:" not in said):
        return f"exit {code} without a word: {said[-300:]!r}"
    path = place / command.output
    try:
        found = command.read(path) if path.exists() else None
    except Exception as error:
        return f"exit {code}: what it left cannot be read: {type(error).__name__}: {error}"
    if found not in allowed or (code == 0 and found != allowed[-1]):
        return f"exit {code}: what it left is neither the old nor the new one"
    return None
