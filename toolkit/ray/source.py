"""Where pictures come from: a folder, Parquet, WebDataset shards, or a Ray dataset -> a Ray dataset of `key` and `picture`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.images.folder import images_under
from toolkit.ray.answers import known
from toolkit.ray.worker import KEY, PICTURE, Columns, Samples, Unanswered
from toolkit.types import Array

BLOCK = 512  # paths of a block at most: the piece of work that is done again where a worker dies
PIECES = 4  # blocks that each actor has at least, so that none waits for the last
FREE: dict[str, Any] = {"num_cpus": 0, "concurrency": 4}  # reading waits for disks, and runs beside actors


def pictures_in(source: Any) -> list[Path] | None:
    """The pictures of a folder, which this process lists; None for all else, which Ray reads. Raises DataError."""
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        return images_under(Path(source)) or None
    return None


def unanswered(source: Any, files: list[Path] | None, key: str, picture: str, done: Array, actors: int) -> Any:
    """The rows of `source` whose keys are not in `done` (sorted digests). None where a folder holds nothing more.

    A folder's keys are paths relative to it, Parquet's and a dataset's are in the column `key`, WebDataset's are SHARD/KEY.
    `files` are what `pictures_in` gave. Raises DataError.
    """
    import ray

    if files is not None:
        return _folder(Path(source), files, done, actors)
    if isinstance(source, ray.data.Dataset):
        return _left(source.map_batches(Columns(key, picture), batch_format="pyarrow", batch_size=None, **FREE), done)
    paths = [str(one) for one in source] if isinstance(source, (list, tuple)) else [str(source)]
    kinds = {_kind(path) for path in paths}
    if kinds == {"parquet"}:
        read = _read(ray.data.read_parquet, paths)
        return _left(read.map_batches(Columns(key, picture), batch_format="pyarrow", batch_size=None, **FREE), done)
    if kinds == {"tar"}:
        _refuse_twins(paths)
        read = _read(ray.data.read_webdataset, paths, decoder=None)
        return _left(read.map_batches(Samples(), batch_format="pyarrow", batch_size=None, **FREE), done)
    what = f"{', '.join(paths[:3])} holds no pictures, Parquet files (.parquet) or WebDataset shards (.tar)"
    raise DataError(what, remedy="Give a folder of pictures, files of one kind, or a ray.data.Dataset")


def _read(read: Callable[..., Any], paths: list[str], **options: Any) -> Any:
    """What Ray makes of the files; it looks at some at once. Raises DataError: one is absent, or none of its kind."""
    try:
        return read(paths, **options, **FREE)
    except (OSError, ValueError) as error:
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(f"{', '.join(paths[:3])} cannot be read: {why}", remedy="Replace it or leave it out") from error


def _refuse_twins(paths: list[str]) -> None:
    """Raise DataError for two shards of one name: their samples would share keys, and the second one's be left out."""
    shards = [str(shard) for path in paths for shard in (Path(path).rglob("*.tar") if Path(path).is_dir() else [path])]
    names = Counter(shard.rpartition("/")[2] for shard in shards)
    if twice := next((name for name, count in names.items() if count > 1), None):
        what = f"{names[twice]} shards are called {twice}, and a sample's key is SHARD/KEY"
        raise DataError(what, remedy="Rename them, or run a job for each folder")


def _folder(root: Path, files: list[Path], done: Array, actors: int) -> Any:
    import pyarrow as pa
    import ray

    keys = [path.relative_to(root).as_posix() for path in files]
    left = [i for i, seen in enumerate(known(keys, done)) if not seen]
    if not left:
        return None
    table = pa.table({KEY: [keys[i] for i in left], PICTURE: [str(files[i].absolute()) for i in left]})
    block = min(BLOCK, math.ceil(len(left) / (PIECES * actors)))
    return ray.data.from_arrow([table.slice(start, block) for start in range(0, len(left), block)])


def _left(rows: Any, done: Array) -> Any:
    import ray

    if not len(done):
        return rows
    return rows.map_batches(Unanswered(ray.put(done)), batch_format="pyarrow", batch_size=None, **FREE)


def _kind(path: str) -> str:
    """parquet or tar, of a file's ending or of what a folder holds; empty where it is neither."""
    if not Path(path).is_dir():
        return path.rpartition(".")[2].lower()
    return next((kind for kind in ("parquet", "tar") if any(Path(path).rglob(f"*.{kind}"))), "")
