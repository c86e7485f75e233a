"""Cache: ranges kept in a file, used again only where they are sure to be what a new collection would give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.calibration.collect import collect
from toolkit.calibration.ranges import Origin, Ranges
from toolkit.errors import CalibrationError
from toolkit.types import Float, Progress

if TYPE_CHECKING:
    import onnx_ir as ir


def collect_into(
    path: Path,
    graph: ir.Model,
    images: Iterable[Float],
    tensors: Sequence[str],
    *,
    origin: Origin,
    count: int,
    threads: int | None = None,
    name_of: Callable[[int], str] | None = None,
    progress: Progress | None = None,
) -> Ranges:
    """The ranges in `path`, where they are of this origin and this many images; else collect them and write them there.

    Work that was cut short waits in `path`.partial and goes on from there. Raises CalibrationError where either file is of
    another origin, as `collect` does else. `origin.images` and `origin.preprocess` must be set: they tell one set from another.
    """
    if not origin.images or not origin.preprocess:
        raise CalibrationError("a cache needs the hashes of the images and of their preprocessing")
    if path.exists():
        return _read(path, origin, count)
    partial = path.with_name(f"{path.name}.partial")
    ranges = collect(
        graph,
        images,
        tensors,
        origin=origin,
        count=count,
        checkpoint=partial,
        threads=threads,
        name_of=name_of,
        progress=progress,
    )
    ranges.write(path)
    partial.unlink(missing_ok=True)
    return ranges


def _read(path: Path, origin: Origin, count: int) -> Ranges:
    ranges = Ranges.read(path)
    difference = ranges.origin.difference(origin)
    if difference is None and ranges.images != count:
        difference = f"it is of {ranges.images} images, not {count}"
    if difference is not None:
        raise CalibrationError(f"the ranges {path} are stale: {difference}", remedy="Delete the file to calibrate again")
    return ranges
