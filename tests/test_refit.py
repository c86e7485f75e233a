"""Refit: new weights in an engine of the same recipe. On the played TensorRT its plan is not built again and answers as a new
build would; what a plan holds for good is refused by name, where the real library keeps the old value and says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

import toolkit
from tests.testing.graphs import install
from toolkit.backends.tensorrt import library as libraries
from toolkit.backends.tensorrt.refit import caveat
from toolkit.errors import BackendError, EngineError, RecipeError
from toolkit.onnxfile import serialize
from toolkit.orders import fill, orders_of
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Recipe
from toolkit.types import Target

TEXT = """
name = "net"
[reference]
arch = "resnet18"
weights = "random:{seed}"
width = 0.125
stem = "cifar"
[preprocess]
size = [16, 16]
color = "L"
mean = [0.5]
std = [0.25]
[precision]
int8 = true
equalize = "none"
[calibration]
data = "packaged:fashion-train"
images = 8
method = "minmax"
[build]
target = "tensorrt"
batch = [1, 2, 4]
{build}
"""


def recipe(seed: int, build: str = "refit = true") -> Recipe:
    return Recipe.parse(TEXT.format(seed=seed, build=build))


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return install(monkeypatch)


def built(one: Recipe, folder: Path, refit: Any = None, targets: str | None = None) -> toolkit.Engine:
    (engine,) = toolkit.build(one, out=folder, proof=False, refit=refit, targets=targets)
    return engine


def answers(engine: toolkit.Engine, images: Any) -> Any:
    with engine.runner() as runner:
        return runner(images)


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).normal(size=(3, 1, 16, 16)).astype(np.float32)


def test_a_plan_takes_new_weights_and_answers_as_a_new_build_would(played: Any, tmp_path: Path, images: Any) -> None:
    first = built(recipe(1), tmp_path / "first")
    builds = len(played._timed)
    second = built(recipe(2), tmp_path / "second", first.path)
    assert len(played._timed) == builds  # nothing was compiled
    fresh = built(recipe(2), tmp_path / "fresh")
    np.testing.assert_array_equal(answers(second, images), answers(fresh, images))
    assert not np.array_equal(answers(second, images), answers(first, images))
    assert second.ranges is not None and fresh.ranges is not None and second.ranges.encode() == fresh.ranges.encode()
    assert second.manifest.hashes["onnx"] == fresh.manifest.hashes["onnx"]
    assert any(note.startswith("refitted from net (") and "not compiled again" in note for note in second.manifest.notes)
    third = built(recipe(3), tmp_path / "third", second)  # once more, from what a refit gave
    assert any("refitted from net" in note for note in third.manifest.notes) and played._device.opened == 0
    with first.runner() as runner:  # and the new engine takes the place of the old one under way
        runner.replace(toolkit.load(second.path))
        np.testing.assert_array_equal(runner(images), answers(fresh, images))


def test_what_the_plan_holds_for_good_is_named_before_anything_is_exchanged(played: Any, tmp_path: Path) -> None:
    first = built(recipe(1), tmp_path / "first")
    constants = first.graph.graph.initializers.items()
    scale = next(name for name, one in constants if "scale" in name and one.const_value is not None and one.const_value.size > 1)
    played._baked = frozenset({scale})
    with pytest.raises(BackendError, match=f"constants baked in that the new weights change: {scale}") as caught:
        built(recipe(2), tmp_path / "second", first)
    assert caught.value.remedy == "Build it without --refit" and not (tmp_path / "second" / "net").exists()


@pytest.mark.parametrize(
    ("build", "other", "words"),
    [
        ("", "", "was built without `build.refit`: its plan takes no weights but its own"),
        ("strip_weights = true", "strip_weights = true", "was built without `build.refit`"),
        ("refit = true", "refit = true\nworkspace_mib = 64", r"differ in \[build\], not in weights alone"),
    ],
)
def test_a_plan_that_takes_no_other_weights_is_refused(played: Any, tmp_path: Path, build: str, other: str, words: str) -> None:
    first = built(recipe(1, build), tmp_path / "first")
    with pytest.raises(EngineError, match=words):
        built(recipe(2, other), tmp_path / "second", first)
    assert not (tmp_path / "second" / "net").exists()


def test_another_graph_another_target_and_several_engines_are_refused(played: Any, tmp_path: Path) -> None:
    first = built(recipe(1), tmp_path / "first")
    wider = msgspec.structs.replace(recipe(2), reference=msgspec.structs.replace(recipe(2).reference, width=0.25))
    with pytest.raises(EngineError, match=r"the new weights make another graph than that of net, at .*conv1.* more"):
        built(wider, tmp_path / "second", first)
    bare = msgspec.structs.replace(recipe(2), precision=msgspec.structs.replace(recipe(2).precision, keep=("fc",)))
    with pytest.raises(EngineError, match=r"another graph .*fc"):
        built(bare, tmp_path / "second", first)
    with pytest.raises(EngineError, match="is an engine for tensorrt, not for cpu"):
        built(recipe(2, ""), tmp_path / "second", first, "cpu")
    with pytest.raises(RecipeError, match="2 engines are wanted"):
        list(fill(orders_of([recipe(2)], "cpu,tensorrt", tmp_path), refit=first))


def test_a_stripped_plan_that_may_be_refitted_keeps_its_bytes_and_gets_other_weights_beside(
    played: Any, tmp_path: Path, images: Any
) -> None:
    both = "refit = true\nstrip_weights = true"
    first, fresh = built(recipe(1, both), tmp_path / "first"), built(recipe(2, both), tmp_path / "fresh")
    second = built(recipe(2, both), tmp_path / "second", first)
    assert second.contents["engine.plan"] == first.contents["engine.plan"]
    np.testing.assert_array_equal(answers(second, images), answers(fresh, images))


def test_on_the_cpu_the_file_is_written_anew_and_the_search_is_spared(tmp_path: Path, images: Any) -> None:
    text = TEXT.replace('method = "minmax"', "").replace('equalize = "none"', "").replace('"tensorrt"', '"cpu"')
    opened = [Recipe.parse(text.format(seed=seed, build="threads = 1")) for seed in (1, 2)]
    first = built(opened[0], tmp_path / "first")
    second = built(opened[1], tmp_path / "second", first)
    assert second.recipe.precision == first.recipe.precision
    assert second.recipe.calibration.method == first.recipe.calibration.method != "auto"
    assert second.recipe.precision.equalize != "auto" and not any(note.startswith("auto: ") for note in second.manifest.notes)
    assert any("in a file that was written again" in note for note in second.manifest.notes)
    assert not np.array_equal(answers(second, images), answers(first, images))


def test_tensorrt_rtx_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    first = built(recipe(1, ""), tmp_path / "first", targets="rtx:sm89")
    with pytest.raises(BackendError, match=r"TensorRT-RTX has no `build.refit`: its compiler fails"):
        built(recipe(2, ""), tmp_path / "second", first, "rtx:sm89")


def test_the_release_that_drops_a_bias_is_named() -> None:
    said = caveat(libraries.Library("tensorrt", None, "11.3.0.99"))
    assert said and "may drop the bias" in said[0]
    assert caveat(libraries.Library("tensorrt", None, "11.4.0.106")) == ()


def test_what_a_refit_changes_are_weights_by_name_for_the_real_library(played: Any) -> None:
    """TensorRT-RTX builds no plan that can be refitted without a GPU, so that a plan's list cannot be read here. But its network
    says which constants are weights at all: INT8 weights and all scales are; zero points, which never change, are not."""
    trt = pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
    graphs = [typed(prepare(recipe(seed), proof=False), Target("tensorrt")) for seed in (1, 2)]
    before, after = ({name: one.const_value for name, one in graph.graph.initializers.items()} for graph in graphs)
    changed = {name for name, one in after.items() if one is not None and not np.array_equal(one.numpy(), before[name].numpy())}
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(serialize(graphs[1]))
    known = {name for name in after if network.mark_weights_refittable(name)}
    assert changed and changed <= known
    assert {after[name].dtype for name in changed} >= {ir.DataType.INT8, ir.DataType.FLOAT}
    assert {name for name in after if name.endswith("zero_point")}.isdisjoint(known)
