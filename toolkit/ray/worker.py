"""What runs in Ray's processes: an actor with a runner of its own, and the filters before it."""

from __future__ import annotations

from typing import Any

from toolkit.engine.engine import Engine
from toolkit.errors import DataError
from toolkit.images.folder import NO_IMAGE, SUFFIXES
from toolkit.ray.answers import arrow, known, schema
from toolkit.types import Array

KEY, PICTURE = "key", "picture"


class Classifier:
    """A table of `key` and `picture` (a path, or an encoded file's bytes) -> a table of answers, row by row."""

    def __init__(self, engine: Any, top: int) -> None:
        import ray

        opened: Engine = ray.get(engine)
        self.runner, self.top = opened.runner(), top

    def __call__(self, table: Any) -> Any:
        keys, pictures = table.column(KEY).to_pylist(), table.column(PICTURE).to_pylist()
        there = [picture for picture in pictures if picture is not None]
        answers = iter(self.runner.answers(there, self.top) if there else ())
        found = [DataError("the row has no picture") if picture is None else next(answers) for picture in pictures]
        rows = [row(key, answer) for key, answer in zip(keys, found, strict=True)]
        return arrow().Table.from_pylist(rows, schema=schema())


def row(key: str, answer: Any) -> dict[str, Any]:
    """One answer of `Runner.answers` as a row of the schema."""
    if isinstance(answer, DataError):
        return {KEY: key, "error": str(answer)}
    return {KEY: key, **answer[0]._asdict(), "top": [one._asdict() for one in answer]}


class Unanswered:
    """Leaves out the rows whose keys are among `done`, a reference to sorted digests."""

    def __init__(self, done: Any) -> None:
        self.done = done

    def __call__(self, table: Any) -> Any:
        import ray

        done: Array = ray.get(self.done)
        return table.filter(arrow().array(~known(table.column(KEY).to_pylist(), done)))


class Columns:
    """A Parquet file's or a dataset's columns as `key` and `picture`. Raises DataError, which names those that are there."""

    def __init__(self, key: str, picture: str) -> None:
        self.key, self.picture = key, picture

    def __call__(self, table: Any) -> Any:
        for name in (self.key, self.picture):
            if name not in table.column_names:
                what = f"the data has no column '{name}'; it has {', '.join(table.column_names)}"
                raise DataError(what, remedy="Name the columns: key=..., picture=...")
        keys = table.column(self.key).to_pylist()
        if None in keys:
            raise DataError(f"a row has no key: '{self.key}' is empty there", remedy="Give every row a key")
        texts = [one if isinstance(one, str) else str(one) for one in keys]
        pictures = table.column(self.picture)
        if arrow().types.is_struct(pictures.type):  # as Hugging Face keeps images: {bytes, path}
            pictures = pictures.combine_chunks().field("bytes")
        return arrow().table({KEY: texts, PICTURE: pictures})


class Samples:
    """WebDataset's samples as `key` and `picture`: the shard's name and the sample's key; the first member that is a picture.

    A sample without one has none; where no sample has, DataError names their members.
    """

    def __call__(self, table: Any) -> Any:
        names = [name for name in table.column_names if f".{name.rpartition('.')[2].lower()}" in SUFFIXES]
        members = [table.column(name).to_pylist() for name in names]
        samples, shards = table.column("__key__").to_pylist(), table.column("__url__").to_pylist()
        keys = [f"{shard.rpartition('/')[2].removesuffix('.tar')}/{key}" for shard, key in zip(shards, samples, strict=True)]
        pictures = [next((member[i] for member in members if member[i] is not None), None) for i in range(len(keys))]
        if keys and not members:
            others = ", ".join(name for name in table.column_names if not name.startswith("__"))
            raise DataError(f"the sample {keys[0]} has no picture; its members are {others}", remedy=NO_IMAGE)
        return arrow().table({KEY: keys, PICTURE: arrow().array(pictures, arrow().binary())})
