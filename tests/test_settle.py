"""How calibration images are parted, and what stands where they are too few to choose by."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.graph.conftest import Observed
from tests.graph.networks import fashion_graph, pictures
from toolkit.calibration import collect
from toolkit.calibration.collect import Keeper
from toolkit.graph.qdq import quantize
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.select import SHARE
from toolkit.images.dataset import Images
from toolkit.recipe import Calibration, Precision, Recipe
from toolkit.settle import CHOOSING, JUDGING, Held, candidate_runner, hold_back, is_open, settle
from toolkit.types import Float, Target, quiet

ENGINE = Path(__file__).parent.parent / "engines/fashion-resnet18-int8.toml"


def parted(folder: Path, total: int, wanted: int, *, labeled: bool = False) -> Held:
    images = np.random.default_rng(0).normal(size=(total, 1, 28, 28)).astype(np.float32)
    images[:, 0, 0, 0] = np.arange(total)
    np.save(folder / "images.npy", images)
    recipe = Recipe.load(ENGINE)
    calibration = Calibration(data=str(folder / "images.npy"), images=wanted)
    accept = recipe.accept if labeled else msgspec.structs.replace(recipe.accept, data=None)
    return hold_back(msgspec.structs.replace(recipe, calibration=calibration, accept=accept))


def numbers(images: Images | None) -> list[int]:
    return [] if images is None else [int(image[0, 0, 0]) for batch in images.batches(8) for image in batch]


@pytest.mark.parametrize(("total", "wanted"), [(1, 512), (3, 512), (6, 512), (24, 512), (64, 64), (400, 64), (400, 400)])
def test_no_image_serves_twice(tmp_path: Path, total: int, wanted: int) -> None:
    held = parted(tmp_path, total, wanted)
    parts = [numbers(images) for images in held[:3]]
    every = [number for part in parts for number in part]
    assert len(every) == len(set(every)) <= total
    assert 1 <= len(parts[0]) <= wanted
    assert bool(parts[1]) == bool(parts[2]) == (total >= 4)
    if total < wanted + CHOOSING + JUDGING:
        assert (parts[0] + parts[1])[:wanted] == numbers(held.whole)


def test_what_lies_beyond_the_wanted_number_is_held_back_first(tmp_path: Path) -> None:
    held = parted(tmp_path, 400, 64)
    assert numbers(held.ranging) == list(range(64))
    assert len(numbers(held.choosing)) == CHOOSING
    assert len(numbers(held.judging)) == JUDGING


def test_the_same_images_are_held_back_again(tmp_path: Path) -> None:
    first, again = parted(tmp_path, 64, 64), parted(tmp_path, 64, 64)
    assert [numbers(images) for images in first] == [numbers(images) for images in again]


@pytest.mark.parametrize("labeled", [True, False])
def test_neither_order_nor_names_say_which_images_are_held_back(tmp_path: Path, labeled: bool) -> None:
    """64 pictures in a folder, and the same ones under names that sort otherwise; an array, and its rows shuffled."""
    random = np.random.default_rng(2)
    drawn = random.integers(0, 256, (64, 28, 28)).astype(np.uint8)
    plain = Recipe.load(ENGINE)
    accept = plain.accept if labeled else msgspec.structs.replace(plain.accept, data=None)

    def parts(data: Path) -> list[Float]:
        recipe = msgspec.structs.replace(plain, calibration=Calibration(data=str(data)), accept=accept)
        return [np.concatenate(list(images.batches(8))) for images in hold_back(recipe) if images is not None]

    told = []
    for name, order in (("as-they-are", range(64)), ("mixed", random.permutation(64))):
        (tmp_path / name).mkdir()
        for place, index in enumerate(order):
            Image.fromarray(drawn[index]).save(tmp_path / name / f"{place:02}.png")
        told.append(parts(tmp_path / name))
        np.save(tmp_path / f"{name}.npy", drawn[np.array(order)][:, None].astype(np.float32))
        told.append(parts(tmp_path / f"{name}.npy"))
    assert len(told[0]) == (3 if labeled else 4)
    for one, other in ((0, 2), (1, 3)):
        for first, second in zip(told[one], told[other], strict=True):
            np.testing.assert_array_equal(first, second)


def test_labeled_images_spare_the_judging_ones(tmp_path: Path) -> None:
    held = parted(tmp_path, 64, 64, labeled=True)
    assert held.judging is None
    assert held.ranging.count == 48
    assert held.whole.count == 64


def test_fixed_settings_hold_nothing_back_for_a_choice() -> None:
    recipe = Recipe.load(ENGINE)
    given = {"equalize": "none", "weights": "absmax", "rounding": "nearest", "bias_correction": False}
    precision = msgspec.structs.replace(recipe.precision, **given)
    fixed = msgspec.structs.replace(recipe, precision=precision, calibration=Calibration(method="entropy"))
    assert is_open(recipe)
    assert not is_open(fixed)
    assert hold_back(fixed).choosing is None


def test_what_ranges_are_drawn_from_does_not_hang_on_what_is_open(tmp_path: Path) -> None:
    held = parted(tmp_path, 200, 512)
    recipe = Recipe.load(ENGINE)
    given = {"equalize": "none", "weights": "absmax", "rounding": "nearest", "bias_correction": False}
    precision = msgspec.structs.replace(recipe.precision, **given)
    calibration = Calibration(data=str(tmp_path / "images.npy"), method="entropy")
    accept = msgspec.structs.replace(recipe.accept, data=None)
    fixed = hold_back(msgspec.structs.replace(recipe, precision=precision, calibration=calibration, accept=accept))
    assert numbers(fixed.whole) == numbers(held.whole)
    assert numbers(held.whole) == [*numbers(held.ranging), *numbers(held.choosing)]


def test_no_image_runs_through_the_chosen_graph_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    np.save(tmp_path / "images.npy", pictures(192))
    recipe = Recipe.load(ENGINE)
    calibration, accept = Calibration(data=str(tmp_path / "images.npy")), msgspec.structs.replace(recipe.accept, data=None)
    recipe, graph = msgspec.structs.replace(recipe, calibration=calibration, accept=accept), fashion_graph("resnet18")
    held, ran, start = hold_back(recipe), [0], Keeper.start
    assert held.whole is not None

    def counted(keeper: Keeper, image: Float) -> None:
        ran[0] += 1
        start(keeper, image)

    monkeypatch.setattr(Keeper, "start", counted)
    found = settle(recipe, graph, held, Target("cpu"), quiet)
    modes = 3  # none, pairs, streams
    assert ran[0] == modes * SHARE + held.whole.count - SHARE
    alone = collect(found.graph, held.whole.batches(8), watched(found.graph), origin=found.ranges.origin)
    assert found.ranges.encode() == alone.encode()


def test_candidates_for_a_gpu_are_run_as_their_engine_is_judged() -> None:
    """ONNX Runtime rounds the biases of quantized layers, and TensorRT does not: what is chosen must not be chosen for that."""
    recipe, gpu, graph = Recipe.load(ENGINE), Target("rtx", 89), fashion_graph("resnet18")
    whole = msgspec.structs.replace(recipe, precision=msgspec.structs.replace(recipe.precision, compute="fp32"))
    eight = quantize(graph, Observed(graph, pictures(16)), Precision(int8=True), Calibration(method="minmax"), scheme="tensorrt")
    ours, want, careless = candidate_runner(whole, eight, gpu), predicting_runner(eight, gpu), graph_runner(eight)
    np.testing.assert_array_equal(ours(pictures(4)), want(pictures(4)))
    assert not np.array_equal(ours(pictures(4)), careless(pictures(4)))
