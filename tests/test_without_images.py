"""No image is asked for where none is needed: FP32 and FP16 engines, and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import toolkit
from toolkit import orders, pipeline
from toolkit.errors import CalibrationError, RecipeError
from toolkit.images.synthetic import synthetic
from toolkit.recipe import Calibration, Preprocess, Recipe
from toolkit.types import Target

ENGINES = Path(__file__).parent.parent / "engines"
CPU = Target("cpu")


def bare(compute: str = "fp32", weights: str = "random:1") -> Recipe:
    """A recipe that names no images at all."""
    gray = 'size = [32, 32]\ncolor = "L"\nmean = [0.5]\nstd = [0.25]\n'
    text = f'name = "bare"\n[reference]\narch = "resnet18"\nweights = "{weights}"\nwidth = 0.125\n[preprocess]\n{gray}'
    return Recipe.parse(f'{text}[precision]\ncompute = "{compute}"\n')


@pytest.mark.parametrize("compute", ["fp32", "fp16"])
def test_a_build_without_images_says_what_it_was_checked_on(compute: str, tmp_path: Path) -> None:
    ((folder, manifest),) = orders.build_all([bare(compute)], None, tmp_path)
    assert any("checked on 12 seeded synthetic images" in note for note in manifest.notes)
    assert any("which tensors overflow" in note for note in manifest.notes) == (compute == "fp16")
    with toolkit.load(folder) as runner:
        assert runner(np.zeros((2, 1, 32, 32), np.float32)).shape == (2, 1000)


def test_an_export_without_images_says_so(tmp_path: Path) -> None:
    _, agreement, _, notes = pipeline.export(bare(), tmp_path / "m.onnx")
    assert agreement.images == 12 and agreement.cosine > 0.9999
    assert "synthetic" in notes[0] and (tmp_path / "m.onnx").is_file()


def test_an_export_checked_on_images_says_nothing_of_synthetic_ones() -> None:
    trip = pipeline.prepare(Recipe.load(ENGINES / "fashion-resnet18-fp32.toml"), proof=False)
    assert not any("synthetic" in note for note in pipeline.unforeseen(trip))


GRAY = Preprocess(size=(9, 9), color="L", mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize("how", [Preprocess(size=(20, 12), resize=24), GRAY])
def test_synthetic_images_are_the_same_each_time_and_use_the_whole_scale(how: Preprocess) -> None:
    batch = next(synthetic(how, 3).batches(3))
    assert batch.shape == (3, *how.input_shape)
    np.testing.assert_array_equal(batch, next(synthetic(how, 3).batches(3)))
    pixels = np.asarray(synthetic(how, 1).picture(0))
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.fixture(scope="module")
def ranges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ranges of the same network, drawn with and without equalization from images that the later builds do not have."""
    folder = tmp_path_factory.mktemp("ranges")
    np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((24, 1, 32, 32)).astype(np.float32))
    found = {}
    for kind in ("none", "streams"):
        precision = msgspec.structs.replace(bare().precision, int8=True, equalize=kind)
        data = Calibration(data=str(folder / "images.npy"), method="minmax", images=16)
        found[kind] = folder / f"{kind}.json"
        pipeline.ranges_of(msgspec.structs.replace(bare(), precision=precision, calibration=data)).write(found[kind])
    return found


def with_ranges(path: Path, **precision: Any) -> Recipe:
    wanted = msgspec.structs.replace(bare().precision, int8=True, **precision)
    return msgspec.structs.replace(bare(), precision=wanted, calibration=Calibration(ranges=str(path), method="minmax"))


def test_int8_from_ranges_asks_for_no_image(ranges: dict[str, Path], tmp_path: Path) -> None:
    ((folder, manifest),) = orders.build_all([with_ranges(ranges["none"])], None, tmp_path)
    assert manifest.recipe["precision"]["int8"]
    assert any("not judged" in note for note in manifest.notes)
    with toolkit.load(folder) as runner:
        assert np.isfinite(runner(np.zeros((1, 1, 32, 32), np.float32))).all()


def test_ranges_of_an_equalized_graph_say_that_they_need_their_images(ranges: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"set `calibration.data` to the images"):
        orders.build_all([with_ranges(ranges["streams"])], None, tmp_path)
    with pytest.raises(RecipeError, match=r'`equalize = "streams"` is measured on images'):
        orders.build_all([with_ranges(ranges["streams"], equalize="streams")], None, tmp_path)
