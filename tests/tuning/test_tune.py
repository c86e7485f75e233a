from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tuning.small import SMALL
from toolkit import tuning
from toolkit.errors import BudgetError, RecipeError
from toolkit.graph.edit import weight_of
from toolkit.harness.answers import snr
from toolkit.images.dataset import PACKAGED, open_data
from toolkit.recipe import Accept, Recipe
from toolkit.reference.weights import read_weights
from toolkit.tuning import TuneResult
from toolkit.tuning.choose import choose
from toolkit.tuning.cost import cost, int8_share
from toolkit.tuning.parts import units
from toolkit.tuning.search import Found
from toolkit.tuning.sensitivity import sensitivity
from toolkit.tuning.trial import Half
from toolkit.tuning.workbench import Workbench, vary

RECIPE = SMALL + """
[precision]
int8 = true
[calibration]
data = "packaged:fashion-train"
images = 64
[build]
threads = 1
[accept]
data = "packaged:fashion-test"
images = 1600
max_top1_drop = 1.5
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.parse(RECIPE)


@pytest.fixture(scope="module")
def bench(recipe: Recipe) -> Workbench:
    """For a GPU that is not here, so that the cost model decides and no clock."""
    build = msgspec.structs.replace(recipe.build, target="rtx:sm89")
    return Workbench(msgspec.structs.replace(recipe, build=build))


@pytest.fixture(scope="module")
def result(recipe: Recipe) -> TuneResult:
    return tuning.tune(recipe, limit=34, seconds=0.5)


def test_the_search_keeps_to_its_limit_and_to_the_budget(result: TuneResult) -> None:
    assert result.evaluations == len(result.trials) + 2 * len(result.sensitivity) <= 34
    assert result.winner.held_out is not None
    assert result.winner.held_out.accepted
    assert result.winner.held_out.images == 800
    assert not result.predicted


def test_no_graph_leaves_its_method_to_a_choice_that_its_build_would_make_again(result: TuneResult) -> None:
    assert {trial.recipe.calibration.method for trial in result.trials} == {"mse", "minmax", "entropy", "percentile"}


def test_the_front_holds_only_what_nothing_beats(result: TuneResult) -> None:
    assert result.front
    assert all(trial in result.finalists for trial in result.front)
    for faster, slower in itertools.pairwise(result.front):
        assert faster.time <= slower.time
        assert faster.snr < slower.snr


def test_the_winner_is_written_as_a_recipe_with_its_reasons(result: TuneResult, tmp_path: Path) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text(result.toml(tmp_path))
    assert Recipe.load(file) == result.winner.recipe
    for reason in result.reasons:
        assert f"#   {reason}\n" in file.read_text()


def test_paths_become_relative_to_the_new_recipe(result: TuneResult, tmp_path: Path) -> None:
    reference = msgspec.structs.replace(result.winner.recipe.reference, weights=str(tmp_path / "w.safetensors"))
    methods = {"layer1.0/relu": "mse"}
    precision = msgspec.structs.replace(result.winner.recipe.precision, methods=methods, int8=True)
    moved = msgspec.structs.replace(result.winner.recipe, reference=reference, precision=precision)
    changed = msgspec.structs.replace(result, winner=msgspec.structs.replace(result.winner, recipe=moved))
    (tmp_path / "below").mkdir()
    text = changed.toml(tmp_path / "below")
    assert 'weights = "../w.safetensors"' in text
    (tmp_path / "below" / "r.toml").write_text(text)
    assert Recipe.load(tmp_path / "below" / "r.toml").precision.methods == methods


def test_a_margin_that_no_set_can_show_leaves_equal_answers_and_a_time_that_none_keeps_is_said(recipe: Recipe) -> None:
    # Nothing is left for the preparation to choose.
    fixed = vary(recipe, equalize="none", weights="absmax", rounding="nearest", bias_correction=False)
    recipe = msgspec.structs.replace(fixed, calibration=msgspec.structs.replace(recipe.calibration, method="mse"))
    hard = msgspec.structs.replace(recipe, accept=Accept(data="packaged:fashion-test", images=400, max_top1_drop=0.01))
    winner = tuning.tune(hard, limit=16).winner
    assert winner.held_out is not None
    assert winner.held_out.disagreements == ()
    late = msgspec.structs.replace(recipe, accept=msgspec.structs.replace(recipe.accept, max_p99_ms=1e-4))
    with pytest.raises(BudgetError, match=r"no graph keeps max_p99_ms = 0.0001 within the accuracy budget: the best is .+ ms"):
        tuning.tune(late, limit=16, seconds=0.2)


def test_without_images_to_be_accurate_on_there_is_nothing_to_tune(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="names no images to be accurate on"):
        tuning.tune(msgspec.structs.replace(recipe, accept=Accept()))


def test_int8_that_brings_too_little_gives_way(bench: Workbench) -> None:
    fp16 = bench.judge(bench.trial("fp16", vary(bench.recipe, int8=False, compute="fp16")), held_out=False)
    int8 = bench.judge(bench.trial("int8", bench.recipe), held_out=False)
    for share, winner in ((0.985, "fp16"), (0.975, "int8")):
        tried = [fp16, msgspec.structs.replace(int8, cost=share * fp16.cost)]
        found, _, reasons = choose(bench, Found(tried, tried, [], []))
        assert found.name == winner
        assert any("predicted by a cost model, not measured" in reason for reason in reasons)
        assert any("is not chosen" in reason for reason in reasons) == (winner == "fp16")


def test_the_cost_model_knows_what_is_narrow(bench: Workbench) -> None:
    floating = [vary(bench.recipe, int8=False, compute=compute) for compute in ("fp16", "fp32")]
    graphs = [bench.graph(recipe) for recipe in (bench.recipe, *floating)]
    int8, fp16, fp32 = (cost(graph, 256) for graph in graphs)
    assert int8 < fp16 < fp32
    assert 1.8 < fp32 / fp16 <= 2  # all twice as wide, but for the picture that comes in
    assert [round(int8_share(graph), 2) for graph in graphs] == [1, 0, 0]


def test_units_cover_each_layer_once(bench: Workbench) -> None:
    graph = bench.fp32()
    for most, count in ((18, 10), (4, 4)):
        parts = units(graph, most)
        assert len(parts) == count
        layers = [node.name for part in parts for node in part.nodes if weight_of(node) is not None]
        assert layers == [node.name for node in graph.graph if weight_of(node) is not None]


def test_the_sensitive_block_is_found(recipe: Recipe, tmp_path: Path) -> None:
    """A block whose channels are spread over four decades hurts most where it alone is INT8, and least where it is left out."""
    state = {key: value.float() for key, value in read_weights(PACKAGED / "fashion-resnet18.safetensors").tensors.items()}
    spread = torch.logspace(-2, 2, len(state["layer3.1.bn1.bias"]))
    state["layer3.1.bn1.weight"] *= spread
    state["layer3.1.bn1.bias"] *= spread
    state["layer3.1.conv2.weight"] /= spread[None, :, None, None]
    save_file(state, tmp_path / "odd.safetensors", {"arch": "resnet18", "width": "0.25", "stem": "small"})
    reference = msgspec.structs.replace(recipe.reference, weights=str(tmp_path / "odd.safetensors"))
    odd = msgspec.structs.replace(recipe, reference=reference, accept=Accept(data="packaged:fashion-test", images=8))
    bench = Workbench(vary(odd, equalize="none"))
    found = sensitivity(bench, bench.trial("int8", bench.recipe), units(bench.fp32()))
    assert min(found, key=lambda layer: layer.alone).unit == "layer3.1"
    assert max(found, key=lambda layer: layer.left_out).unit == "layer3.1"
    assert abs(sum(layer.share for layer in found) - 1) < 1e-6


def test_halves_are_apart_and_whole(recipe: Recipe) -> None:
    images = open_data("packaged:fashion-test", recipe.preprocess, 11)
    everything = np.concatenate(list(images.batches(11)))
    for size in (1, 2, 3, 32):
        even, odd = Half(images, 0), Half(images, 1)
        assert (even.count, odd.count) == (6, 5)
        np.testing.assert_array_equal(np.concatenate(list(even.batches(size))), everything[::2])
        np.testing.assert_array_equal(np.concatenate(list(odd.batches(size))), everything[1::2])
        assert images.labels is not None
        np.testing.assert_array_equal(odd.labels, images.labels[1::2])


def test_snr_is_in_decibels() -> None:
    truth = np.ones((10, 10), np.float32)
    assert snr(truth, truth * 1.01) == pytest.approx(40, abs=0.01)
    assert snr(truth, truth) == 120
    assert snr(truth, truth * np.float32(np.nan)) == -120
