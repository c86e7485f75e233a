"""One pass over a real graph in the real ONNX Runtime; expectations come from numpy over all activations at once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from tests.calibration.network import TENSORS, network
from toolkit.calibration import Tally, collect
from toolkit.calibration.histogram import SIZE
from toolkit.calibration.observer import Observer, Walk
from toolkit.errors import CalibrationError
from toolkit.types import Array, Float


def batches(images: Float, size: int) -> Iterator[Float]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


@pytest.fixture(scope="module")
def truth(graph: ir.Model, images: Float) -> dict[str, Float]:
    """Every watched activation of all images, by onnx's own evaluator."""
    model = ir.to_proto(graph)
    present = {output.name for output in model.graph.output}
    for name in set(TENSORS) - present - {"input"}:
        model.graph.output.add().name = name
    names = [output.name for output in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(names, {"input": images}), strict=True)) | {"input": images}


def test_agrees_with_numpy_over_all_activations(graph: ir.Model, images: Float, truth: dict[str, Float]) -> None:
    ranges = collect(graph, batches(images, 16), TENSORS)
    assert ranges.images == len(images)
    assert set(ranges.tensors) == set(TENSORS)
    for name, found in ranges.tensors.items():
        assert found.values == truth[name].size
        assert (found.min, found.max) == pytest.approx((truth[name].min(), truth[name].max()), rel=1e-5, abs=1e-6)
        for percent in (99.9, 99.99, 99.999):
            exact = np.percentile(np.abs(truth[name]), percent, method="inverted_cdf")
            assert found.thresholds[f"percentile-{percent}"] == pytest.approx(exact, rel=1e-3)
        assert sum(found.bars) == found.values - found.zeros
    assert ranges.tensors["input"].max == images.max()
    assert ranges.tensors["first"].zeros == pytest.approx(np.count_nonzero(truth["first"] == 0), abs=2)


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_batch_nor_order_nor_threads_show(graph: ir.Model, images: Float, size: int, threads: int) -> None:
    expected = collect(graph, [images], TENSORS, threads=1)
    shuffled = np.random.default_rng(size).permutation(images)
    assert collect(graph, batches(shuffled, size), TENSORS, threads=threads).encode() == expected.encode()


def test_an_array_that_is_filled_again_and_again(graph: ir.Model, images: Float) -> None:
    def reader() -> Iterator[Float]:
        buffer = np.empty_like(images[:1])
        for image in images:
            buffer[0] = image
            yield buffer

    assert collect(graph, reader(), TENSORS).encode() == collect(graph, [images], TENSORS).encode()


def test_watching_leaves_the_graph_alone(graph: ir.Model, images: Float) -> None:
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    collect(graph, [images[:2]], TENSORS)
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before


class Stop(BaseException):
    """Ctrl-C, as the library sees it."""


def interrupted(images: Float, after: int) -> Iterator[Float]:
    yield images[:after]
    raise Stop


@pytest.mark.parametrize("after", [1, 30, 89])
def test_goes_on_after_an_interrupt(graph: ir.Model, images: Float, tmp_path: Path, after: int) -> None:
    checkpoint = tmp_path / "ranges.partial"
    with pytest.raises(Stop):
        collect(graph, interrupted(images, after), TENSORS, checkpoint=checkpoint)
    seen: list[int] = []
    progress = lambda done, total: seen.append(done)  # noqa: E731
    again = collect(graph, batches(images, 7), TENSORS, checkpoint=checkpoint, progress=progress)
    assert seen == list(range(after + 1, len(images) + 1))
    assert again.encode() == collect(graph, [images], TENSORS).encode()


@pytest.mark.parametrize("first", [1, 40])
def test_goes_on_from_what_other_images_gave(graph: ir.Model, images: Float, first: int, tmp_path: Path) -> None:
    expected, tally, checkpoint = collect(graph, [images], TENSORS).encode(), Tally(), tmp_path / "kept"
    start = collect(graph, [images[:first]], TENSORS, tally=tally)
    assert start.encode() == collect(graph, [images[:first]], TENSORS).encode()
    with pytest.raises(Stop):
        collect(graph, interrupted(images[first:], 5), TENSORS, checkpoint=checkpoint, tally=tally)
    assert tally.images == 0
    collect(graph, [images[:first]], TENSORS, tally=tally)
    assert collect(graph, [images[first:]], TENSORS, checkpoint=checkpoint, tally=tally).encode() == expected
    assert tally.images == len(images)


def test_a_checkpoint_behind_the_tally_is_left(graph: ir.Model, images: Float, tmp_path: Path) -> None:
    tally, checkpoint = Tally(), tmp_path / "kept"
    with pytest.raises(Stop):
        collect(graph, interrupted(images, 5), TENSORS, checkpoint=checkpoint)
    collect(graph, [images[:20]], TENSORS, tally=tally)
    found = collect(graph, [images[20:]], TENSORS, checkpoint=checkpoint, tally=tally)
    assert found.encode() == collect(graph, [images], TENSORS).encode()


def test_an_image_behind_a_tally_is_named_by_its_number_of_all(graph: ir.Model, images: Float) -> None:
    tally, broken = Tally(), images.copy()
    collect(graph, [images[:20]], TENSORS, tally=tally)
    broken[23] = np.nan
    with pytest.raises(CalibrationError, match=r"image 23 \(picture 23\)"):
        collect(graph, [broken[20:]], TENSORS, tally=tally, name_of=lambda index: f"picture {index}")


def test_refuses_a_checkpoint_of_other_work(graph: ir.Model, images: Float, tmp_path: Path) -> None:
    checkpoint = tmp_path / "ranges.partial"
    with pytest.raises(Stop):
        collect(network(seed=5), interrupted(images, 3), TENSORS, checkpoint=checkpoint)
    with pytest.raises(CalibrationError, match="stale: its layers are the same, but their weights differ"):
        collect(graph, [images], TENSORS, checkpoint=checkpoint)
    assert collect(network(seed=5), [images[:3]], TENSORS, checkpoint=checkpoint).images == 3  # the refusal harmed nothing
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(CalibrationError, match="cannot be read"):
        collect(graph, [images], TENSORS, checkpoint=checkpoint)


class Touches:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_runs_no_pickle(graph: ir.Model, images: Float, tmp_path: Path) -> None:
    checkpoint, ran = tmp_path / "ranges.partial", tmp_path / "ran"
    with pytest.raises(Stop):
        collect(graph, interrupted(images, 3), TENSORS, checkpoint=checkpoint)
    with np.load(checkpoint) as kept:
        arrays = {**kept, "states": np.array([Touches(ran)], object)}
    with checkpoint.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(CalibrationError, match="cannot be read"):
        collect(graph, [images], TENSORS, checkpoint=checkpoint)
    assert not ran.exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_names_the_tensor_and_the_image_that_are_not_finite(graph: ir.Model, images: Float, bad: float) -> None:
    spoilt = images[:10].copy()
    spoilt[6, 1, 3, 3] = bad
    with pytest.raises(CalibrationError, match=r"tensor 'input' holds a NaN or an infinity for image 6 \(cat-6.png\)"):
        collect(graph, batches(spoilt, 4), TENSORS, name_of=lambda i: f"cat-{i}.png")
    with pytest.raises(CalibrationError, match=r"tensor 'branch' holds a NaN or an infinity for image 6\."):
        collect(graph, [spoilt], ["branch", "sum"])


def test_one_image(graph: ir.Model, images: Float) -> None:
    ranges = collect(graph, [images[:1]], TENSORS)
    assert ranges.images == 1
    low, high = ranges.range("input", "minmax")
    assert (low, high) == (images[0].min(), images[0].max())


def test_no_image(graph: ir.Model) -> None:
    with pytest.raises(CalibrationError, match="no image to calibrate with"):
        collect(graph, [], TENSORS)


def test_images_of_mixed_size(graph: ir.Model, images: Float) -> None:
    with pytest.raises(CalibrationError, match=r"takes images of \[3, 12, 12\], not \[3, 14, 12\]"):
        collect(graph, [images[:2], np.zeros((1, 3, 14, 12), np.float32)], TENSORS)


def test_a_tensor_that_is_not_there(graph: ir.Model, images: Float) -> None:
    with pytest.raises(CalibrationError, match="no tensor 'conv99'"):
        collect(graph, [images], ["first", "conv99"])


def test_an_all_zero_and_a_constant_tensor(images: Float) -> None:
    model = network()
    model.graph.initializers["w1"].const_value = ir.tensor(np.zeros((8, 3, 3, 3), np.float32))
    bias = np.array([0, 0, 0, 0, 2, 2, 2, 2], np.float32)
    model.graph.initializers["b1"].const_value = ir.tensor(bias * 0)
    assert collect(model, [images[:3]], ["first"]).range("first", "entropy") == (0.0, 0.0)
    model.graph.initializers["b1"].const_value = ir.tensor(bias * 0 + 2)
    ranges = collect(model, [images[:3]], ["first"])
    for method in ("minmax", "entropy", "percentile", "mse"):
        assert ranges.range("first", method) == (0.0, 2.0)


def test_memory_is_flat(graph: ir.Model, images: Float) -> None:
    """numpy tells tracemalloc of its arrays; activations of 1,000 images would take 38 MB."""
    peaks = []
    for count in (50, 1000):
        many = (images[i % len(images)][None] for i in range(count))
        tracemalloc.start()
        collect(graph, many, TENSORS, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 8 * SIZE


def values_of(walk: Walk, image: Float) -> dict[str, Array]:
    return {name: values.copy() for name, values in walk(image)}


def test_activations_of_an_image_do_not_depend_on_what_ran_before(graph: ir.Model, images: Float) -> None:
    walk = Observer(graph, TENSORS, 2).walk()
    kept = values_of(walk, images[:1])
    values_of(walk, images[1:2])
    again = values_of(walk, images[:1])
    assert set(kept) == set(TENSORS)
    assert all(np.array_equal(again[name], kept[name]) for name in TENSORS)


def test_walks_do_not_share_memory(graph: ir.Model, images: Float) -> None:
    watch = Observer(graph, TENSORS, 2)
    one, other = watch.walk(), watch.walk()
    kept = values_of(one, images[:1])
    values_of(other, images[1:2])
    for name, values in one(images[:1]):
        values_of(other, images[1:2])
        assert np.array_equal(values, kept[name])


def test_an_image_of_another_size_on_a_graph_that_takes_any() -> None:
    """What is kept from the first image must not be written with the second's other shape."""
    graph = network()
    shape = graph.graph.inputs[0].shape
    assert shape is not None
    graph.graph.inputs[0].shape = ir.Shape([shape[0], shape[1], None, None])
    random = np.random.default_rng(0)
    pictures = [random.standard_normal((1, 3, side, side)).astype(np.float32) for side in (12, 12, 20, 12)]
    walk = Observer(graph, ["first"], 1).walk()
    found = [values_of(walk, picture)["first"] for picture in pictures]
    alone = [values_of(Observer(graph, ["first"], 1).walk(), picture)["first"] for picture in pictures]
    assert all(np.array_equal(a, b) for a, b in zip(found, alone, strict=True))
