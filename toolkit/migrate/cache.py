"""A calibration cache of TensorRT 10 and before.

Text: a first line such as `TRT-8601-EntropyCalibration2`, then `tensor: hex` a line, where the hex digits are the bytes of a
float32, most significant first: the scale of symmetric int8. The largest magnitude that a scale holds is 127 times the scale.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

from toolkit.errors import CalibrationError
from toolkit.types import Frozen

HEAD = re.compile(r"TRT-(\d+)-(\w+)")
LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})")
CALIBRATORS = {"EntropyCalibration2": "entropy", "EntropyCalibration": "entropy", "MinMaxCalibration": "min-max"}


class Cache(Frozen, frozen=True):
    """`scales` by tensor; `version` is TensorRT's, as the file writes it; `calibrator` its class."""

    version: str
    calibrator: str
    scales: dict[str, float]

    @property
    def method(self) -> str:
        """How the thresholds were chosen, in words."""
        return CALIBRATORS.get(self.calibrator, self.calibrator)


def is_cache(data: bytes) -> bool:
    """Whether the file begins as a calibration cache does."""
    return HEAD.match(data[:100].decode("ascii", errors="replace")) is not None


def read_cache(path: Path) -> Cache:
    """Raises CalibrationError where the file is no cache, or a line of it cannot be understood (it names the line)."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    head = HEAD.fullmatch(lines[0].strip()) if lines else None
    if head is None:
        raise CalibrationError(f"{path} is not a calibration cache of TensorRT: its first line is not TRT-VERSION-CALIBRATOR")
    scales = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        found = LINE.fullmatch(line.strip())
        scale = struct.unpack(">f", bytes.fromhex(found[2]))[0] if found else math.nan
        if found is None or not math.isfinite(scale) or scale < 0:
            raise CalibrationError(f"{path}, line {number} is not a scale: {line.strip()[:60]!r}", remedy="Calibrate again")
        scales[found[1]] = scale
    return Cache(version=head[1], calibrator=head[2], scales=scales)
