"""Ranges that were collected before, used again only where they are sure to be what a new collection would give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from toolkit.calibration.collect import Tally, collect
from toolkit.calibration.ranges import Origin, Ranges
from toolkit.disk import cache
from toolkit.disk.files import sha256_bytes
from toolkit.errors import CalibrationError
from toolkit.types import Float, Progress

if TYPE_CHECKING:
    import onnx_ir as ir

KIND = "ranges"


def find_ranges(origin: Origin, count: int) -> Ranges | None:
    """What `collect_cached` kept of this origin and this many images; None where there is none, or it is damaged."""
    data = cache.find(KIND, _name(origin, count))
    if data is None:
        return None
    with suppress(CalibrationError):
        ranges = Ranges.decode(data, "kept ranges")
        if ranges.origin == origin and ranges.images == count:
            return ranges
    return None


def collect_cached(
    graph: ir.Model,
    images: Iterable[Float],
    tensors: Sequence[str],
    *,
    origin: Origin,
    count: int,
    threads: int | None = None,
    name_of: Callable[[int], str] | None = None,
    progress: Progress | None = None,
    tally: Tally | None = None,
) -> Ranges:
    """`collect`, or what it gave before. Work that was cut short goes on where it was; without a cache it begins again. Where a
    `tally` is given, `images` are those behind the ones in it; origin and `count` are of all.

    `origin.images` and `origin.preprocess` must be set: they tell one set from another. Raises what `collect` raises.
    """
    if not origin.images or not origin.preprocess:
        raise CalibrationError("a cache needs the hashes of the images and of their preprocessing")
    kept = find_ranges(origin, count)
    if kept is not None:
        return kept
    name = _name(origin, count)
    try:
        checkpoint = cache.place(KIND, f"{name}.partial")
    except OSError:
        checkpoint = None
    ranges = collect(
        graph, images, tensors, origin=origin, count=count, checkpoint=checkpoint,
        threads=threads, name_of=name_of, progress=progress, tally=tally,
    )  # fmt: skip
    cache.keep(KIND, name, ranges.encode())
    cache.forget(KIND, f"{name}.partial")
    return ranges


def _name(origin: Origin, count: int) -> str:
    return sha256_bytes(msgspec.json.encode(origin), str(count).encode())[:24]
