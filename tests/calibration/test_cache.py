from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import pytest

from tests.calibration.network import TENSORS, network
from toolkit.calibration import Origin, collect_into, origin_of
from toolkit.errors import CalibrationError
from toolkit.types import Float


def origin(graph: ir.Model, images: str = "i" * 64, preprocess: str = "p" * 64) -> Origin:
    return origin_of(graph, TENSORS, images, preprocess)


def test_a_second_call_runs_nothing(graph: ir.Model, images: Float, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    first = collect_into(path, graph, [images], TENSORS, origin=origin(graph), count=len(images))
    again = collect_into(path, graph, iter(()), TENSORS, origin=origin(graph), count=len(images))
    assert again == first
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.json"]


def test_what_is_stale_is_refused_and_kept(graph: ir.Model, images: Float, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    collect_into(path, graph, [images], TENSORS, origin=origin(graph), count=len(images))
    before = path.read_bytes()
    cases = [
        (origin(network(seed=3)), len(images), "weights differ"),
        (origin(network(channels=16)), len(images), "layers differ"),
        (origin(graph, images="j" * 64), len(images), "other images"),
        (origin(graph, preprocess="q" * 64), len(images), "preprocessed in another way"),
        (origin_of(graph, TENSORS[:2], "i" * 64, "p" * 64), len(images), "other tensors"),
        (origin(graph), 50, "it is of 90 images, not 50"),
    ]
    for other, count, message in cases:
        with pytest.raises(CalibrationError, match=message):
            collect_into(path, graph, [images], TENSORS, origin=other, count=count)
    assert path.read_bytes() == before


def test_unfinished_work_is_taken_up(graph: ir.Model, images: Float, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"

    def cut_short() -> Iterator[Float]:
        yield images[:40]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_into(path, graph, cut_short(), TENSORS, origin=origin(graph), count=90)
    assert not path.exists()
    assert (tmp_path / "ranges.json.partial").exists()
    done: list[int] = []
    collect_into(path, graph, [images], TENSORS, origin=origin(graph), count=90, progress=lambda n, total: done.append(n))
    assert not (tmp_path / "ranges.json.partial").exists()
    assert done == list(range(41, 91))


def test_a_cache_without_hashes_is_refused(graph: ir.Model, images: Float, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="needs the hashes"):
        collect_into(tmp_path / "ranges.json", graph, [images], TENSORS, origin=origin_of(graph, TENSORS), count=90)
