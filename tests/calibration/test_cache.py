from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import pytest

from tests.calibration.network import TENSORS, network
from toolkit.calibration import Origin, collect_cached, find_ranges, origin_of
from toolkit.errors import CalibrationError
from toolkit.types import Float


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "resnet-deploy" / "ranges"


def origin(graph: ir.Model, images: str = "i" * 64, preprocess: str = "p" * 64) -> Origin:
    return origin_of(graph, TENSORS, images, preprocess)


def test_a_second_call_runs_nothing(graph: ir.Model, images: Float, folder: Path) -> None:
    first = collect_cached(graph, [images], TENSORS, origin=origin(graph), count=len(images))
    again = collect_cached(graph, iter(()), TENSORS, origin=origin(graph), count=len(images))
    assert again == first == find_ranges(origin(graph), len(images))
    assert len(os.listdir(folder)) == 1


def test_what_is_of_another_origin_is_not_found(graph: ir.Model, images: Float) -> None:
    collect_cached(graph, [images], TENSORS, origin=origin(graph), count=len(images))
    cases = [
        (origin(network(seed=3)), len(images)),
        (origin(network(channels=16)), len(images)),
        (origin(graph, images="j" * 64), len(images)),
        (origin(graph, preprocess="q" * 64), len(images)),
        (origin_of(graph, TENSORS[:2], "i" * 64, "p" * 64), len(images)),
        (origin(graph), 50),
    ]
    assert [find_ranges(other, count) for other, count in cases] == [None] * len(cases)


def test_a_damaged_file_is_made_again(graph: ir.Model, images: Float, folder: Path) -> None:
    first = collect_cached(graph, [images], TENSORS, origin=origin(graph), count=len(images))
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert collect_cached(graph, [images], TENSORS, origin=origin(graph), count=len(images)) == first
    assert find_ranges(origin(graph), len(images)) == first


def test_without_a_cache_the_ranges_are_the_same(graph: ir.Model, images: Float, folder: Path, monkeypatch) -> None:
    first = collect_cached(graph, [images], TENSORS, origin=origin(graph), count=len(images))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self/nothing")
    assert collect_cached(graph, [images], TENSORS, origin=origin(graph), count=len(images)) == first


def test_unfinished_work_is_taken_up(graph: ir.Model, images: Float, folder: Path) -> None:
    def cut_short() -> Iterator[Float]:
        yield images[:40]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_cached(graph, cut_short(), TENSORS, origin=origin(graph), count=90)
    (partial,) = folder.iterdir()
    assert partial.suffix == ".partial"
    done: list[int] = []
    collect_cached(graph, [images], TENSORS, origin=origin(graph), count=90, progress=lambda n, total: done.append(n))
    assert not partial.exists()
    assert done == list(range(41, 91))


def test_a_cache_without_hashes_is_refused(graph: ir.Model, images: Float) -> None:
    with pytest.raises(CalibrationError, match="needs the hashes"):
        collect_cached(graph, [images], TENSORS, origin=origin_of(graph, TENSORS), count=90)
