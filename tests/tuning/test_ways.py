"""A finalist is tried on every library for the CPU and on one thread and all; the recipe that wins says which."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import msgspec
import onnxruntime
import pytest

from tests.tuning.small import SMALL
from toolkit.cpu import cores
from toolkit.errors import RecipeError
from toolkit.recipe import Build, Recipe
from toolkit.recipe.write import recipe_toml
from toolkit.tuning.ways import Way, fastest, targets_of, ways_of
from toolkit.tuning.workbench import Workbench
from toolkit.types import Target

RECIPE = SMALL + """
[precision]
int8 = true
[calibration]
images = 8
[accept]
data = "packaged:fashion-test"
images = 8
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.parse(RECIPE)


def on(recipe: Recipe, **build: object) -> Recipe:
    return msgspec.structs.replace(recipe, build=msgspec.structs.replace(recipe.build, **build))


def test_a_recipe_for_a_cpu_is_tried_on_every_library_for_it(recipe: Recipe) -> None:
    installed = [Target("cpu"), *([Target("openvino")] if find_spec("openvino") else [])]
    assert list(targets_of(recipe, None)) == installed
    assert targets_of(on(recipe, target="openvino"), None)[0] == Target("openvino")
    assert targets_of(on(recipe, target="rtx:sm89"), None) == (Target("rtx", 89),)
    assert targets_of(recipe, "openvino,cpu") == (Target("openvino"), Target("cpu"))


def test_targets_whose_pairs_stand_in_different_places_are_refused(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"cpu, rtx:sm89 want Q/DQ pairs in different places.+Tune for each"):
        targets_of(recipe, "cpu,rtx:sm89")


def test_threads_are_tried_unless_the_recipe_names_them(recipe: Recipe) -> None:
    both = (Target("cpu"), Target("openvino"))
    counts = list(dict.fromkeys((1, cores())))
    assert ways_of(recipe, both) == [Way(target, count) for target in both for count in counts]
    assert ways_of(on(recipe, threads=3), both) == [Way(target, 3) for target in both]
    assert ways_of(recipe, (Target("rtx", 89),)) == [Way(Target("rtx", 89), None)]


def test_spinning_is_no_option_of_openvino(recipe: Recipe) -> None:
    spinning = on(recipe, spin=True)
    assert Way(Target("openvino"), 2).of(spinning).build == Build(target="openvino", threads=2)
    assert Way(Target("cpu"), 2).of(spinning).build == Build(target="cpu", threads=2, spin=True)


def test_the_fastest_way_stands_for_a_trial_and_a_library_that_is_not_here_is_named(recipe: Recipe, tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has CUDA")
    bench = Workbench(recipe, targets=(Target("cpu"), Target("cuda")))  # cuda: a way that no test machine's library has
    trial = bench.trial("int8", bench.recipe)
    (chosen,), (measured,), reasons = fastest(bench, [trial], 0.2)
    assert measured.failure is None
    assert reasons[0].startswith("cuda is excluded: this ONNX Runtime has no CUDAExecutionProvider")
    assert reasons[1].startswith(f"int8 on cpu, {chosen.recipe.build.threads} thread")
    assert chosen.recipe.build.target == "cpu"
    assert chosen.recipe.build.threads in (1, cores())
    file = tmp_path / "tuned.toml"
    file.write_text(recipe_toml(chosen.recipe, tmp_path))
    assert 'target = "cpu"' in file.read_text()
    assert Recipe.load(file).build == chosen.recipe.build
