"""The Parquet files that answers are kept in: each appears whole, with keys and answers together, so a key is there or it is not.

One process writes, and holds the folder's lock meanwhile. Each file tells in its metadata which engine answered; a folder
holds the answers of one.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.disk.drafts import lock
from toolkit.disk.files import write_atomically
from toolkit.errors import DataError, MissingExtra
from toolkit.types import Array

DIGEST = 16  # bytes of a key's BLAKE2b: two of a billion keys agree with a probability of 1e-21
LOCK = ".answers.lock"
SEAL, ENGINE = b"resnet-deploy.seal", b"resnet-deploy.engine"


def digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=DIGEST).digest()


def digests(keys: Iterable[str]) -> Array:
    """[n] keys -> sorted S16 [n], for `known`."""
    return np.sort(np.array([digest(key) for key in keys], f"S{DIGEST}"))


def known(keys: Iterable[str], done: Array) -> Array:
    """bool [n]: which keys are among the sorted digests `done`."""
    asked = np.array([digest(key) for key in keys], f"S{DIGEST}")
    if not len(done) or not len(asked):
        return np.zeros(len(asked), bool)
    place = np.minimum(np.searchsorted(done, asked), len(done) - 1)
    return np.asarray(done[place] == asked)


def arrow() -> Any:
    """pyarrow. Raises MissingExtra."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra("pyarrow", "ray") from error
    return pyarrow


def schema(metadata: dict[bytes, bytes] | None = None) -> Any:
    """key, the class answered (label, index, probability), the first few as a list, and for a bad picture its `error`."""
    pa = arrow()
    one = [("label", pa.string()), ("index", pa.int32()), ("probability", pa.float64())]
    fields = [("key", pa.string()), *one, ("top", pa.list_(pa.struct(one))), ("error", pa.string())]
    return pa.schema(fields, metadata=metadata)


class Answers:
    """A folder of answers of one engine."""

    def __init__(self, folder: Path, name: str, seal: str) -> None:
        self.folder, self.schema = folder, schema({SEAL: seal.encode(), ENGINE: name.encode()})
        self.written = 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes here inside the block. Raises DataError where somebody does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("w") as handle:
            if lock(handle.fileno()) is False:
                raise DataError(f"another job writes its answers into {self.folder}", remedy="Wait for it, or use another folder")
            yield

    def read_keys(self) -> Iterator[list[str]]:
        """The keys of each file that is there. Raises DataError for another engine's answers, or a file that cannot be read."""
        from pyarrow import ArrowException, parquet

        for path in sorted(self.folder.glob("*.parquet")):
            try:
                table = parquet.read_table(path, columns=["key"])
            except (ArrowException, OSError) as error:
                raise DataError(f"{path} cannot be read: {error}", remedy="Remove it: its keys are answered again") from error
            kept = table.schema.metadata or {}
            if kept.get(SEAL) != self.schema.metadata[SEAL]:
                other = kept.get(ENGINE, b"another program").decode(errors="replace")
                what = f"{path} holds answers of {other}, not of this engine ({self.schema.metadata[ENGINE].decode()})"
                raise DataError(what, remedy="Use another folder")
            yield table.column("key").to_pylist()

    def write(self, tables: list[Any]) -> None:
        """One more file of these answers."""
        from pyarrow import concat_tables, parquet

        pa = arrow()
        table = concat_tables(tables).cast(self.schema).replace_schema_metadata(self.schema.metadata)
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink)
        write_atomically(self.folder / f"answers-{uuid.uuid4().hex}.parquet", sink.getvalue().to_pybytes())
        self.written += 1
