"""Ray Data on one node: the same answers as a plain loop, each key once, whatever was there before and whatever dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("ray") is None:  # not imported yet: its import warns
    pytest.skip("the ray extra is not installed", allow_module_level=True)

from tests.ray.conftest import BAD, Pictures, shards
from toolkit.engine.engine import Engine
from toolkit.errors import BackendError, DataError, MissingExtra
from toolkit.ray import classify
from toolkit.ray.answers import Answers, digests, known
from toolkit.ray.pool import Pool, resources, room
from toolkit.ray.source import _refuse_twins
from toolkit.ray.worker import Classifier, Samples

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=150 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """key -> row; every key must be there once."""
    from pyarrow import parquet

    rows = [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


def check(found: dict[str, dict[str, Any]], engine: Engine, files: dict[str, bytes], name: Callable[[str], str] = str) -> None:
    """One by one against a plain loop."""
    assert set(found) == {name(key) for key in files}
    with engine.runner() as runner:
        for key, data in files.items():
            row, (answer,) = found[name(key)], runner.answers([data])
            if isinstance(answer, DataError):
                assert "as an image" in row["error"] and row["label"] is None
                continue
            assert row["error"] is None and (row["label"], row["index"]) == (answer[0].label, answer[0].index)
            assert [one["label"] for one in row["top"]] == [one.label for one in answer]
            np.testing.assert_allclose([one["probability"] for one in row["top"]], [one.probability for one in answer], rtol=1e-5)


def test_a_folder_once_and_then_only_what_is_missing(cluster: None, golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    first = classify(pictures.folder, golden.path, tmp_path / "out", batch=16, part=40)
    assert (first.answered, first.before, first.errors, first.again) == (91, 0, 1, 0) and first.files >= 2
    check(read(tmp_path / "out"), golden, pictures.files)
    for path in sorted((tmp_path / "out").glob("*.parquet"))[:1]:
        path.unlink()
    left = len(read(tmp_path / "out"))
    again = classify(pictures.folder, golden, tmp_path / "out", batch=16)
    assert (again.answered, again.before) == (91 - left, left) and again.answered > 0
    check(read(tmp_path / "out"), golden, pictures.files)
    last = classify(pictures.folder, golden, tmp_path / "out")
    assert (last.answered, last.before, last.files) == (0, 91, 0)


@pytest.mark.slow
def test_parquet_and_webdataset(cluster: None, golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    from pyarrow import parquet, table

    rows = list(pictures.files.items())
    (tmp_path / "rows").mkdir()
    for i in range(3):
        keys, data = zip(*rows[i::3], strict=True)
        parquet.write_table(table({"name": keys, "file": data, "other": range(len(keys))}), tmp_path / "rows" / f"{i}.parquet")
    columns = {"key": "name", "picture": "file"}
    assert classify(tmp_path / "rows", golden, tmp_path / "p", **columns).answered == 91
    check(read(tmp_path / "p"), golden, pictures.files)
    with pytest.raises(DataError, match="no column 'key'; it has name, file, other"):
        classify(tmp_path / "rows", golden, tmp_path / "q")
    (tmp_path / "shards").mkdir()
    shards(pictures.files, tmp_path / "shards")
    assert classify(tmp_path / "shards", golden, tmp_path / "w").answered == 91
    check(read(tmp_path / "w"), golden, pictures.files, lambda key: key.removesuffix(".png"))
    assert classify(tmp_path / "shards", golden, tmp_path / "w").answered == 0


@pytest.mark.slow
def test_a_dataset_with_a_key_twice(cluster: None, golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    import ray

    rows = [{"key": key, "picture": data} for key, data in list(pictures.files.items())[:5]]
    found = classify(ray.data.from_items([*rows, rows[1], rows[1]]), golden, tmp_path, batch=2)
    assert (found.answered, found.again) == (5, 2)
    assert "2 rows left out, whose keys had come before" in str(found)
    assert set(read(tmp_path)) == {row["key"] for row in rows}


def test_a_row_without_a_picture_gets_its_error_and_costs_no_other_its_answer(golden: Engine, pictures: Pictures) -> None:
    """The actor itself, without a cluster around it: a null in a column of a billion must not end the job."""
    from pyarrow import table

    actor = Classifier.__new__(Classifier)
    actor.top, good = 2, pictures.files["a/000.png"]
    with golden.runner() as runner:
        actor.runner = runner
        found = actor(table({"key": ["x", "y", "z"], "picture": [None, good, None]})).to_pylist()
        assert actor(table({"key": ["x"], "picture": [None]})).to_pylist()[0]["error"] == "the row has no picture"
        (best,) = runner.classify([good], top=2)
    assert [row["error"] for row in found] == ["the row has no picture", None, "the row has no picture"]
    assert found[1]["label"] == best[0].label and len(found[1]["top"]) == 2


def test_a_sample_without_a_picture_is_a_row_without_one() -> None:
    from pyarrow import table

    both = {"__key__": ["0", "1"], "__url__": ["/x/a.tar"] * 2, "cls": [b"1", b"2"]}
    rows = Samples()(table({**both, "jpg": [b"picture", None]})).to_pylist()
    assert rows == [{"key": "a/0", "picture": b"picture"}, {"key": "a/1", "picture": None}]
    with pytest.raises(DataError, match="the sample a/0 has no picture; its members are cls"):
        Samples()(table(both))


def test_shards_of_one_name_would_share_keys(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        shards({"a/0.png": b"picture"}, tmp_path / part)
    with pytest.raises(DataError, match=r"2 shards are called a\.tar"):
        _refuse_twins([str(tmp_path)])
    with pytest.raises(DataError, match=r"2 shards are called b\.tar"):
        _refuse_twins([str(tmp_path / part / "b.tar") for part in ("train", "val")])
    _refuse_twins([str(tmp_path / "train")])


@pytest.mark.parametrize("wrong", [{"top": 0}, {"batch": 0}, {"part": -1}])
def test_counts_that_cannot_be(wrong: dict[str, int], golden: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{next(iter(wrong))}=.* cannot be"):
        classify(tmp_path, golden, tmp_path / "out", **wrong)


def test_answers_of_another_engine_are_not_added_to(cluster: None, golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    other = Answers(tmp_path, "another", "f" * 64)
    with other.locked():
        from toolkit.ray.answers import arrow, schema

        other.write([arrow().Table.from_pylist([{"key": BAD}], schema=schema())])
        with pytest.raises(DataError, match="another job writes"):
            classify(pictures.folder, golden, tmp_path)
    with pytest.raises(DataError, match="holds answers of another, not of this engine"):
        classify(pictures.folder, golden, tmp_path)


def test_a_source_that_is_none(cluster: None, golden: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures, Parquet files"):
        classify(tmp_path, golden, tmp_path / "out")


def test_files_that_cannot_be_read_are_named_and_why(cluster: None, golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nope\.parquet cannot be read"):
        classify(tmp_path / "nope.parquet", golden, tmp_path / "out")
    (tmp_path / "junk.parquet").write_bytes(b"no Parquet at all, and long enough to be looked at")
    with pytest.raises(DataError, match=r"junk\.parquet cannot be read: .*[Pp]arquet"):
        classify(tmp_path / "junk.parquet", golden, tmp_path / "out")
    (tmp_path / "junk.tar").write_bytes(b"no shard at all" * 100)
    with pytest.raises(BackendError, match=r"Ray gave up: ReadError: .*\w"):
        classify(tmp_path / "junk.tar", golden, tmp_path / "out")


def test_actors_for_which_there_is_no_room(golden: Engine) -> None:
    assert room({"CPU": 4.0, "GPU": 2.0}, {"num_gpus": 0.25}) == 8
    assert room({"CPU": 4.0}, resources(golden, None, None)) == 4
    with pytest.raises(BackendError, match="a runner needs 1 GPU, and the cluster has 4 CPU, 0 GPU"):
        room({"CPU": 4.0}, {"num_gpus": 1.0})


def test_a_core_is_left_to_read_with(golden: Engine) -> None:
    """Ray's listing wants one: a pool that takes every core would wait for itself."""

    def pool(cores: float, reading: bool, **more: Any) -> Pool:
        asked = {"actors": None, "cpus": None, "gpus": None, **more}
        return Pool.of(golden, {"CPU": cores}, reading=reading, **asked)

    assert pool(4, False) == Pool(4, 4, {"num_cpus": 1.0})
    assert pool(4, True) == Pool(3, 4, {"num_cpus": 1.0})
    assert pool(1, True) == Pool(1, 1, {"num_cpus": 0.0})
    assert pool(2, True, cpus=2) == Pool(1, 1, {"num_cpus": 1.0})
    assert pool(4, True, actors=3) == Pool(3, 3, {"num_cpus": 1.0})
    with pytest.raises(BackendError, match=r"4 actors of 1 core\(s\) take 4 of 4, and Ray needs one"):
        pool(4, True, actors=4)
    assert pool(4, False, actors=4).size == 4 and pool(4, True, actors=4, cpus=0.5).size == 4
    with pytest.raises(BackendError, match="0 actors cannot work"):
        pool(4, False, actors=0)


def test_keys_are_known_by_their_digests() -> None:
    keys = [f"folder/{i}" for i in range(1000)]
    assert known([*keys[:3], "x", ""], digests(keys)).tolist() == [True] * 3 + [False] * 2
    assert known(keys, digests([])).sum() == 0


def test_without_ray_the_extra_is_named(golden: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"resnet-deploy\[ray\]"):
        classify(tmp_path, golden, tmp_path / "out")


def test_the_package_is_reached_from_the_toolkit() -> None:
    script = "import toolkit, sys; assert 'ray' not in sys.modules; print(toolkit.ray.classify.__module__, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ), check=True)
    assert done.stdout.split() == ["toolkit.ray.job", "False"]
