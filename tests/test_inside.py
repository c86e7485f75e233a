"""Engines that take pixels: built, judged, measured, packed, loaded and looked into like any other engine."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

import toolkit
from toolkit import pipeline
from toolkit.diff import diff
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError, InputError
from toolkit.harness.latency import Sampling
from toolkit.images.dataset import open_data
from toolkit.measure import bench
from toolkit.recipe import Recipe
from toolkit.trip import Trip
from toolkit.types import Target
from toolkit.why import why

ENGINES = Path(__file__).parent.parent / "engines"
CPU = Target("cpu")


def small(name: str, **options: object) -> Recipe:
    """A packaged recipe with few images and nothing left to be measured."""
    recipe = Recipe.load(ENGINES / f"{name}.toml")
    calibration = msgspec.structs.replace(recipe.calibration, images=64, method="minmax")
    precision = msgspec.structs.replace(
        recipe.precision, compute="fp32", equalize="none", weights="absmax", rounding="nearest", **options
    )
    precision = msgspec.structs.replace(precision, bias_correction=recipe.precision.int8)
    return msgspec.structs.replace(
        recipe,
        calibration=calibration,
        precision=precision,
        preprocess=msgspec.structs.replace(recipe.preprocess, inside=True),
        accept=msgspec.structs.replace(recipe.accept, images=200, min_agreement=0.9, max_top1_drop=5.0),
        build=msgspec.structs.replace(recipe.build, threads=1),
    )


@pytest.fixture(scope="module")
def trip() -> Trip:
    return pipeline.prepare(small("fashion-resnet18-int8"))


@pytest.fixture(scope="module")
def engine(trip: Trip, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("inside") / "int8"
    pipeline.build(trip, CPU, folder)
    return Engine.open(folder)


@pytest.fixture(scope="module")
def outside(trip: Trip, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The same engine, which takes preprocessed images."""
    folder = tmp_path_factory.mktemp("outside") / "int8"
    recipe = msgspec.structs.replace(trip.recipe, preprocess=trip.recipe.preprocess.outside)
    pipeline.build(trip._replace(recipe=recipe), CPU, folder)
    return Engine.open(folder)


def test_the_manifest_says_what_it_takes(engine: Engine) -> None:
    spec = engine.manifest.inputs[0]
    assert (spec.name, spec.dtype, spec.shape) == ("pixels", "uint8", ("N", 28, 28, 1))
    assert engine.manifest.preprocess.inside
    assert any("conv1 reads them in INT8" in note for note in engine.manifest.notes)


def test_it_is_judged_by_the_answers_that_it_carries(engine: Engine) -> None:
    judgement = engine.judge()
    assert judgement.accepted
    assert "all 200 of them" in judgement.remarks[-1]
    assert judgement.verdict is not None
    assert judgement.verdict.snr is not None
    assert judgement.verdict.snr > 25


def test_against_the_same_engine_that_takes_floats(engine: Engine, outside: Engine) -> None:
    """Each is given the images as it takes them, in both orders."""
    for one, other in ((engine, outside), (outside, engine)):
        verdict = one.judge(against=other).verdict
        assert verdict is not None
        assert verdict.agreement > 0.99


def test_classify_takes_pictures_and_a_call_takes_pixels(engine: Engine, outside: Engine, tmp_path: Path) -> None:
    images = open_data("packaged:fashion-test", engine.manifest.preprocess, 8)
    pictures = [images.picture(i) for i in range(8)]
    pictures[0].save(tmp_path / "0.png")
    with engine.runner() as runner, outside.runner() as other:
        batch = runner.preprocess([tmp_path / "0.png", *pictures[1:]])
        np.testing.assert_array_equal(batch, next(images.batches(8)))
        answers = runner.classify([tmp_path / "0.png", *pictures[1:]])
        assert answers == runner.predictions(runner(batch))
        assert [top[0].label for top in answers] == [top[0].label for top in other.classify(pictures)]
        with pytest.raises(InputError, match="takes uint8, not float32"):
            runner(batch.astype(np.float32))
        with pytest.raises(InputError, match=r"takes \[N, 28, 28, 1\]"):
            runner(batch.transpose(0, 3, 1, 2))


def test_bench_measures_it_beside_its_reference(engine: Engine) -> None:
    results = bench([engine], batches=[1], plan=Sampling(seconds=0.4, warmup=0.05, yardstick=False))
    assert not results.failures
    assert {m.clock for m in results.measurements} == {"with-transfers", "end-to-end"}
    assert len(results.verdicts) == 1


def test_packed_and_loaded(engine: Engine, tmp_path: Path) -> None:
    packed = engine.pack(tmp_path / "x.engine")
    with engine.runner() as runner, toolkit.load(packed, check_finite=True) as other:
        batch = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
        np.testing.assert_array_equal(runner(batch), other(batch))


def test_why_looks_into_its_layers(engine: Engine) -> None:
    found = why(engine.path, remedies=False)
    assert any("takes pixels" in note for note in found.notes)
    assert found.layers[0].name == "conv1"
    assert found.agreement > 0.8


def test_diff_of_pixels_and_floats(engine: Engine, outside: Engine) -> None:
    found = diff(outside.path, engine.path, seconds=0)
    assert any("one takes pixels" in note for note in found.notes)
    assert found.verdict is not None
    assert found.verdict.agreement > 0.99
    same = diff(engine.path, engine.path, seconds=0.2)
    assert same.logits is None  # no difference
    assert same.latency is not None


def test_tensorrt_rtx_takes_pixels(trip: Trip, tmp_path: Path) -> None:
    """Built without a GPU: its parser takes uint8, and the graph's own Cast."""
    pytest.importorskip("tensorrt_rtx")
    recipe = msgspec.structs.replace(trip.recipe, build=msgspec.structs.replace(trip.recipe.build, threads=None))
    manifest = pipeline.build(trip._replace(recipe=recipe), Target.parse("rtx:sm89"), tmp_path / "rtx")
    assert manifest.inputs[0].dtype == "uint8"
    judgement = Engine.open(tmp_path / "rtx").judge()
    assert judgement.how.startswith("predicted")
    assert judgement.accepted


def test_openvino_takes_pixels(trip: Trip, tmp_path: Path, engine: Engine) -> None:
    pytest.importorskip("openvino")
    pipeline.build(trip, Target("openvino"), tmp_path / "ov")
    verdict = Engine.open(tmp_path / "ov").judge(against=engine).verdict
    assert verdict is not None
    assert verdict.agreement > 0.98


def test_fp32_is_equal_to_a_thousandth_of_the_largest_logit(tmp_path: Path) -> None:
    recipe = small("fashion-resnet18-fp32")
    pipeline.build(pipeline.prepare(recipe), CPU, tmp_path / "x")
    engine = Engine.open(tmp_path / "x")
    assert engine.answers is not None
    images = open_data("packaged:fashion-test", engine.manifest.preprocess, 200)
    rows, truth = engine.answers.of(images.digests)
    with engine.runner() as runner:
        found = np.concatenate([runner(batch) for batch in images.batches(50)])[rows]
    assert np.abs(found - truth).max() <= 1e-3 * np.abs(truth).max()


def test_an_engine_without_its_network_is_refused_by_name(engine: Engine, tmp_path: Path) -> None:
    """`why` needs the FP32 network of an engine that takes pixels."""
    import shutil

    from toolkit.disk.files import sha256_bytes

    folder = tmp_path / "x"
    shutil.copytree(engine.path.resolve(), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["reference"]["weights"] = "nowhere.safetensors"
    manifest["seal"] = "0" * 64
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    seal = sha256_bytes(text.encode())
    (folder / "manifest.json").write_text(text.replace('"seal": "' + "0" * 64, f'"seal": "{seal}'))
    with pytest.raises(EngineError, match="takes pixels, and is analyzed through its FP32 network"):
        why(folder, remedies=False)


def test_a_picture_of_another_mode_and_size(engine: Engine) -> None:
    with engine.runner() as runner:
        assert runner.preprocess(Image.new("RGB", (300, 200), (255, 0, 0))).shape == (1, 28, 28, 1)
