"""Ranges: what calibration leaves behind. For each watched tensor its extremes, the threshold of every method, and a drawing.

One small JSON file, a line a tensor, sorted by name: two calibrations can be compared with `diff`. Each target takes its own
Q/DQ scheme from the same file: calibrate once, quantize for every target.

What a range is. Every method chooses a threshold T on the magnitude. The range of a tensor is [max(min, -T), min(max, T)],
widened to hold 0: [0, T] after a ReLU, [-T, T] where both signs are large, and [min, T] where only one side needs clipping. A
symmetric scheme takes the larger side of it, which is T unless nothing is clipped; an affine one takes both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from toolkit.calibration.fingerprint import Fingerprint
from toolkit.calibration.histogram import Histogram
from toolkit.calibration.methods import thresholds
from toolkit.disk.files import decode_json, read_regular, write_atomically
from toolkit.errors import CalibrationError
from toolkit.recipe import Method
from toolkit.types import Frozen

VERSION = 1
BARS = 64
MOST = float(np.finfo(np.float32).max)
LIMIT = 1 << 28  # bytes of a file: some 600 a tensor
_AGAIN = "Calibrate again: toolkit calibrate RECIPE"


class Origin(Frozen, frozen=True):
    """What ranges were made of; two calibrations with the same origin give the same ranges, to the last bit.

    `images` and `preprocess` are SHA-256 in hex, of the image set (in any order) and of the recipe's table; empty: not told.
    """

    layers: str
    weights: str
    images: str = ""
    preprocess: str = ""
    tensors: str = ""
    toolkit: int = VERSION

    def difference(self, other: Origin) -> str | None:
        """The first thing in which the two differ, in words; None where they are the same."""
        names = {
            "layers": "its layers differ",
            "weights": "its layers are the same, but their weights differ",
            "images": "other images were used",
            "preprocess": "the images were preprocessed in another way",
            "tensors": "other tensors were watched",
            "toolkit": "another version of the toolkit made it",
        }
        return next((words for key, words in names.items() if getattr(self, key) != getattr(other, key)), None)


class TensorRange(Frozen, frozen=True):
    """One tensor: exact extremes, counts, the threshold on the magnitude by method, and bars to draw.

    `thresholds` keys: minmax, entropy, mse, percentile-99.9 and so on. `entropy-255` and `mse-255` are for unsigned 8-bit
    steps on a tensor without negative values. `bars` are counts of non-zero magnitudes in equal steps from 0 to the maximum.
    """

    min: float
    max: float
    values: int
    zeros: int
    thresholds: dict[str, float]
    bars: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.min <= self.max or min(self.values, self.zeros, *self.bars, *self.thresholds.values()) < 0:
            raise ValueError("a range has min <= max, and no negative count or threshold")
        if max(-self.min, self.max, *self.thresholds.values()) > MOST:
            raise ValueError("a range is one of float32 values")

    @classmethod
    def of(cls, histogram: Histogram) -> TensorRange:
        """Every method's threshold of one histogram."""
        return cls(
            min=histogram.min,
            max=histogram.max,
            values=histogram.total,
            zeros=histogram.zeros,
            thresholds=thresholds(histogram),
            bars=_bars(histogram),
        )


class Ranges(Frozen, frozen=True):
    """Tensor name -> TensorRange, with the origin and the number of images."""

    origin: Origin
    images: int
    tensors: dict[str, TensorRange]
    notes: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know: the tensors that had one value throughout, from which no image can be told."""
        constant = [f"'{name}' ({found.max:g})" for name, found in self.tensors.items() if found.min == found.max]
        if not constant:
            return ()
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        return (f"constant over all {self.images} calibration images: {', '.join(constant[:5])}{more}",)

    def range(self, tensor: str, method: Method, percentile: float = 99.99, *, levels: int = 127) -> tuple[float, float]:
        """(lo, hi) with lo <= 0 <= hi; (0.0, 0.0) for a tensor that was zero throughout.

        `levels` 255 asks for the threshold of an unsigned 8-bit step, which differs where the tensor has no negative value
        and the method weighs rounding against clipping. Raises CalibrationError for a tensor that was not watched.
        """
        found = self.tensors.get(tensor)
        if found is None:
            raise CalibrationError(f"the ranges have no tensor '{tensor}'; they belong to another graph", remedy=_AGAIN)
        method = "mse" if method == "auto" else method  # where nobody has chosen
        key = f"percentile-{percentile}" if method == "percentile" else method
        limit = found.thresholds.get(f"{key}-{levels}", found.thresholds.get(key))
        if limit is None:
            known = ", ".join(found.thresholds)
            raise CalibrationError(f"the ranges of '{tensor}' have no {key}; they have {known}", remedy=_AGAIN)
        return min(max(found.min, -limit), 0.0), max(min(found.max, limit), 0.0)

    def check(self, graph: Any, tensors: Sequence[str] = ()) -> None:
        """Raise CalibrationError, which names the difference, where the ranges are not those of `graph` (an ir.Model)."""
        missing = [name for name in tensors if name not in self.tensors]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise CalibrationError(f"the ranges belong to another graph: they lack '{missing[0]}'{more}", remedy=_AGAIN)
        print_ = Fingerprint.of(graph)
        if print_.layers != self.origin.layers:
            raise CalibrationError("the ranges belong to another graph: its layers differ", remedy=_AGAIN)
        if print_.weights != self.origin.weights:
            raise CalibrationError("the ranges belong to a graph with the same layers and other weights", remedy=_AGAIN)

    @classmethod
    def read(cls, path: str | Path) -> Ranges:
        """Raises CalibrationError where the file is missing, damaged or of another version."""
        try:
            data = read_regular(Path(path), LIMIT)
        except OSError as error:
            raise CalibrationError(f"the ranges {path} cannot be read: {error}", remedy=_AGAIN) from error
        return cls.decode(data, str(path))

    @classmethod
    def decode(cls, data: bytes, where: str) -> Ranges:
        """The bytes that `encode` gave. Raises CalibrationError, which begins with `where`."""
        try:
            raw = decode_json(data)
        except ValueError as error:
            raise CalibrationError(f"the ranges {where} cannot be read: {error}", remedy=_AGAIN) from error
        found = raw.get("version") if isinstance(raw, dict) else None
        if found != VERSION:
            raise CalibrationError(f"{where} has format version {found!r}, this toolkit reads {VERSION}", remedy=_AGAIN)
        try:
            return msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise CalibrationError(f"the ranges {where} are damaged: {error}", remedy=_AGAIN) from error

    def encode(self) -> bytes:
        """The file's bytes: a line a tensor, keys sorted."""

        def text(value: Any) -> str:
            return msgspec.json.encode(value, order="sorted").decode()

        head = [f' "{key}": {text(getattr(self, key))},' for key in ("images", "notes", "origin")]
        lines = ",\n".join(f"  {text(name)}: {text(self.tensors[name])}" for name in sorted(self.tensors))
        return "\n".join(["{", *head, ' "tensors": {', lines, " },", f' "version": {self.version}', "}", ""]).encode()

    def write(self, path: str | Path) -> None:
        """Write the file in one step."""
        write_atomically(Path(path), self.encode())


def _bars(histogram: Histogram) -> tuple[int, ...]:
    if histogram.absmax == 0:
        return ()
    width, counts = histogram.uniform()
    index = np.minimum((np.arange(len(counts)) + 0.5) * (width / histogram.absmax * BARS), BARS - 1).astype(np.int64)
    return tuple(int(n) for n in np.bincount(index, counts, BARS))
