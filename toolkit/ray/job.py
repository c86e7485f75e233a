"""`classify`: every picture of a source answered once by an engine, on as many machines as Ray has, into Parquet files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from toolkit import errors
from toolkit.engine.engine import Engine
from toolkit.errors import DataError, MissingExtra, ToolkitError
from toolkit.ray.answers import DIGEST, Answers, digest, digests
from toolkit.ray.pool import Pool
from toolkit.ray.source import pictures_in, unanswered
from toolkit.ray.worker import KEY, Classifier
from toolkit.types import Array, Frozen

PART, SECONDS = 50_000, 60.0  # answers of a file, and how long answers wait for one at most


class Summary(Frozen, frozen=True):
    """How many pictures were answered now, had been before, could not be read, and came again under a key that was there."""

    answered: int
    before: int
    errors: int
    again: int
    files: int
    seconds: float

    def __str__(self) -> str:
        now = f"{self.answered:,} answered in {self.seconds:.1f} s into {self.files} file(s)"
        said = [now, f"{self.before:,} had been before"]
        if self.errors:
            said.append(f"{self.errors:,} could not be read: column 'error'")
        if self.again:
            said.append(f"{self.again:,} rows left out, whose keys had come before")
        return "; ".join(said)


def classify(
    source: Any,
    engine: Engine | str | Path,
    out: str | Path,
    *,
    key: str = "key",
    picture: str = "picture",
    top: int = 5,
    actors: int | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    batch: int = 64,
    part: int = PART,
) -> Summary:
    """Answer every picture of `source` that `out` holds no answer of yet; may be stopped and started again at any time.

    `source`: a folder of pictures that every node sees, Parquet files or WebDataset shards (a path, a folder or a list of
    them, also a URL that pyarrow opens), or a `ray.data.Dataset`. In the last and in Parquet, `key` and `picture` name the
    columns of a unique name and of the encoded file, or its path. `out` is a folder that this process sees.

    `actors` runners (absent: as many as the cluster's cores or GPUs allow) take `batch` pictures at a time; each is given
    `cpus` cores (absent: the engine's threads) or `gpus` GPUs (absent: one for an engine that needs one; 0.25 lets four
    share it). What is not a folder Ray must read, and it needs a core of its own to begin with. A file is
    written every `part` answers or 60 seconds. Answers are written by this process alone and keys with them, in one step: a
    worker or a node that dies costs time, and no answer is lost or there twice.

    Raises MissingExtra, DataError, EngineError, BackendError, and what a worker raised.
    """
    _check(top=top, batch=batch, part=part)
    opened = engine if isinstance(engine, Engine) else Engine.open(engine)
    answers = Answers(Path(out), opened.name, opened.manifest.seal)
    begin = time.monotonic()
    with answers.locked(), _in_a_line():
        done = _done(answers)
        files = pictures_in(source)
        pool = Pool.of(opened, _cluster(), actors, cpus, gpus, reading=files is None)
        rows = unanswered(source, files, key, picture, done, pool.size)
        tables = [] if rows is None else _answered(rows, opened, top, batch, pool)
        found = _keep(answers, tables, part)
    return Summary(before=len(done), files=answers.written, seconds=time.monotonic() - begin, **found)


def _check(**counts: int) -> None:
    """Raises MissingExtra, and DataError for a count below 1."""
    _library()
    if wrong := [f"{name}={count}" for name, count in counts.items() if count < 1]:
        raise DataError(f"{' and '.join(wrong)} cannot be: it is a number from 1 up")


def _library() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    return ray


def _cluster() -> dict[str, float]:
    ray = _library()
    if not ray.is_initialized():
        ray.init()  # the cluster that RAY_ADDRESS names, one that runs here, or a new one of this machine's own
    found: dict[str, float] = ray.cluster_resources()
    return found


def _answered(rows: Any, engine: Engine, top: int, batch: int, pool: Pool) -> Any:
    """The answers as tables, in whatever order they come."""
    ray = _library()
    answers = rows.map_batches(
        Classifier,
        fn_constructor_kwargs={"engine": ray.put(engine), "top": top},  # it travels to each node once
        batch_size=batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=pool.first, initial_size=pool.first, max_size=pool.size),
        **pool.needs,
    )
    return answers.iter_batches(batch_size=None, batch_format="pyarrow")


@contextmanager
def _in_a_line() -> Iterator[None]:
    """Ray's errors as the toolkit's own: the one that a worker raised, otherwise Ray's last line."""
    try:
        yield
    except _library().exceptions.RayError as error:
        raise _cause(error) from error


def _done(answers: Answers) -> Array:
    parts = [digests(keys) for keys in answers.read_keys()]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, f"S{DIGEST}")


def _keep(answers: Answers, tables: Iterable[Any], part: int) -> dict[str, int]:
    """Write what arrives; every key once."""
    seen: set[bytes] = set()
    waiting: list[Any] = []
    counts = {"answered": 0, "errors": 0, "again": 0}
    since = time.monotonic()
    try:
        for table in tables:
            if not len(table):  # of a block whose keys were all there
                continue
            fresh = _fresh(table, seen)
            counts["again"] += len(table) - len(fresh)
            counts["answered"] += len(fresh)
            counts["errors"] += len(fresh) - fresh.column("error").null_count
            waiting.append(fresh)
            if sum(map(len, waiting)) >= part or time.monotonic() - since > SECONDS:
                answers.write(waiting)
                waiting, since = [], time.monotonic()
    finally:  # what was answered until an error, or Ctrl-C, is kept
        if any(map(len, waiting)):
            answers.write(waiting)
    return counts


def _fresh(table: Any, seen: set[bytes]) -> Any:
    from pyarrow import array

    mask = []
    for key in table.column(KEY).to_pylist():
        mark = digest(key)
        mask.append(mark not in seen)
        seen.add(mark)
    return table if all(mask) else table.filter(array(mask))


def _cause(error: BaseException) -> ToolkitError:
    """The toolkit's own error where a worker raised one, of which Ray keeps the traceback as text; otherwise the first line of
    what a task raised, or of what Ray says."""
    text = str(error)
    found = re.findall(r"^toolkit\.errors\.(\w+): (.*)$", text, re.M)
    if found:
        kind = getattr(errors, found[-1][0], errors.DataError)
        return errors.BackendError(found[-1][1]) if issubclass(kind, errors.MissingExtra) else kind(found[-1][1])
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, Exception) else error
    lines = [line.strip() for line in str(told).splitlines() if line.strip()]
    said = lines[0] if lines else "it does not say why"
    return errors.BackendError(f"Ray gave up: {type(told).__name__}: {said}", remedy="See the workers' logs")
