from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.calibration.network import TENSORS, network
from toolkit.calibration import Ranges, collect
from toolkit.errors import CalibrationError
from toolkit.types import Float


@pytest.fixture(scope="module")
def ranges(graph: ir.Model, images: Float) -> Ranges:
    return collect(graph, [images], TENSORS)


def test_every_method_within_the_extremes(ranges: Ranges) -> None:
    for name, tensor in ranges.tensors.items():
        for method in ("minmax", "entropy", "percentile", "mse"):
            low, high = ranges.range(name, method)
            assert tensor.min <= low <= 0 <= high <= tensor.max or (tensor.min > 0 and low == 0)
    assert ranges.range("input", "minmax") == (ranges.tensors["input"].min, ranges.tensors["input"].max)
    assert ranges.range("first", "minmax")[0] == 0
    tight = ranges.range("sum", "percentile", 99.9)[1]
    assert tight < ranges.range("sum", "percentile", 99.999)[1] < ranges.range("sum", "minmax")[1]


def test_a_threshold_clips_only_the_side_that_passes_it(ranges: Ranges) -> None:
    tensor = ranges.tensors["branch"]
    small, large = sorted((-tensor.min, tensor.max))
    between = (small + large) / 2
    changed = Ranges(
        origin=ranges.origin,
        images=1,
        tensors={"t": type(tensor)(min=tensor.min, max=tensor.max, values=1, zeros=0, thresholds={"mse": between})},
    )
    low, high = changed.range("t", "mse")
    assert sorted((-low, high)) == [small, between]


def test_unsigned_steps_clip_less(ranges: Ranges) -> None:
    assert ranges.range("sum", "mse", levels=255)[1] >= ranges.range("sum", "mse")[1]
    assert ranges.range("input", "mse", levels=255) == ranges.range("input", "mse")


def test_a_tensor_with_one_value_throughout_is_remarked(ranges: Ranges, graph: ir.Model) -> None:
    assert ranges.remarks == ()
    blank = collect(graph, [np.zeros((3, 3, 12, 12), np.float32)], TENSORS)
    assert blank.remarks[0].startswith("constant over all 3 calibration images: 'input' (0)")


def test_round_trip(ranges: Ranges, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    ranges.write(path)
    assert Ranges.read(path) == ranges
    assert Ranges.read(path).encode() == path.read_bytes()


def test_the_file_is_small_sorted_and_a_line_a_tensor(ranges: Ranges) -> None:
    text = ranges.encode().decode()
    names = list(json.loads(text)["tensors"])
    assert names == sorted(TENSORS)
    assert len(text) < 1000 * (len(TENSORS) + 1)
    for name in TENSORS:
        assert sum(f'"{name}":' in line for line in text.splitlines()) == 1


def test_another_graph_is_refused(ranges: Ranges, graph: ir.Model) -> None:
    ranges.check(graph, TENSORS)
    with pytest.raises(CalibrationError, match="same layers and other weights"):
        ranges.check(network(seed=9))
    with pytest.raises(CalibrationError, match="its layers differ"):
        ranges.check(network(channels=16))
    with pytest.raises(CalibrationError, match="lack 'conv7'"):
        ranges.check(graph, ["first", "conv7"])
    with pytest.raises(CalibrationError, match="no tensor 'conv7'"):
        ranges.range("conv7", "entropy")


def test_metadata_does_not_make_another_graph(ranges: Ranges) -> None:
    model = network()
    model.producer_name, model.doc_string = "somebody", "something"
    for node in model.graph:
        node.metadata_props["line"] = "12"
    ranges.check(model, TENSORS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw | {"version": 99}, "format version 99"),
        (lambda raw: raw | {"tensors": {"a": {"min": "low"}}}, "damaged"),
        (lambda raw: raw | {"extra": 1}, "damaged"),
        (lambda raw: [], "format version None"),
    ],
)
def test_a_file_that_is_none(ranges: Ranges, tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(change(json.loads(ranges.encode()))))  # type: ignore[operator]
    with pytest.raises(CalibrationError, match=message):
        Ranges.read(path)
    path.write_bytes(ranges.encode()[:200])
    with pytest.raises(CalibrationError, match="cannot be read"):
        Ranges.read(path)
    with pytest.raises(CalibrationError, match="cannot be read"):
        Ranges.read(tmp_path / "absent.json")


def test_bars_are_numpys_histogram(ranges: Ranges, images: Float) -> None:
    tensor = ranges.tensors["input"]
    expected, _ = np.histogram(np.abs(images[images != 0]), len(tensor.bars), (0, tensor.thresholds["minmax"]))
    assert np.abs(np.cumsum(tensor.bars) - np.cumsum(expected)).max() <= 0.002 * images.size
