"""A calibration cache of TensorRT 10 and before.

Text: a first line such as `TRT-8601-EntropyCalibration2`, then `tensor: hex` a line, where the hex digits are the bits of a
float32, most significant first and without leading zeros, so that a scale of 0 is `0`: the scale of symmetric int8. The largest
magnitude that a scale holds is 127 times the scale. Tensor names may hold colons and spaces: TensorFlow's `input_1:0`, and
`(Unnamed Layer* 8) [Constant]_output` for a tensor that TensorRT named. Scripts that write caches put `TRT-8XXX` for a version,
and end lines as Windows does.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

from toolkit.disk.files import open_regular, read_regular
from toolkit.errors import CalibrationError
from toolkit.types import Frozen

HEAD = re.compile(r"TRT-([\w.]+)-(\w+)")
LINE = re.compile(r"(.+):\s+(?:0x)?([0-9a-fA-F]{1,8})")
CALIBRATORS = {
    "EntropyCalibration2": "entropy",
    "EntropyCalibration": "entropy",
    "MinMaxCalibration": "min-max",
    "LegacyCalibration": "percentile",
}
LEAST, MOST = 1e-20, 1e20  # between them lie the scales of real tensors; 0 is that of a tensor without any value
MOST_BYTES = 64 << 20  # of a cache: some hundred thousand tensors
BOM = b"\xef\xbb\xbf"


class Cache(Frozen, frozen=True):
    """`scales` by tensor; `version` is TensorRT's, as the file writes it; `calibrator` its class; `other`: in words."""

    version: str
    calibrator: str
    scales: dict[str, float]
    other: str = ""

    @property
    def method(self) -> str:
        """How the thresholds were chosen, in words."""
        return CALIBRATORS.get(self.calibrator, self.calibrator)


    @property
    def source(self) -> str:
        """Where the scales are from, in words."""
        return self.other or f"TensorRT {self.version}'s {self.calibrator} ({self.method})"


def is_cache(path: Path) -> bool:
    """Whether the file begins as a calibration cache does; one that cannot be read does not."""
    try:
        with open_regular(path) as file:
            data = file.read(100) or b""
    except OSError:
        return False
    return HEAD.match(data.removeprefix(BOM).decode("ascii", errors="replace")) is not None


def read_cache(path: Path) -> Cache:
    """Raises CalibrationError where the file is no cache, or a line of it cannot be understood (it names the line)."""
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}", remedy="Give the file that TensorRT wrote") from error
    lines = data.removeprefix(BOM).decode("utf-8", errors="replace").split("\n")
    head = HEAD.fullmatch(lines[0].strip())
    if head is None:
        raise CalibrationError(f"{path} is not a calibration cache of TensorRT: its first line is not TRT-VERSION-CALIBRATOR")
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        found = LINE.fullmatch(line.strip())
        scale = scale_of(found[2]) if found else math.nan
        if found is None or not (scale == 0 or LEAST < scale < MOST):
            what = f"{path}, line {number} is not a scale: {line.strip()[:60]!r}"
            raise CalibrationError(what, remedy="Calibrate again: the file is cut, or its bytes are in the other order")
        if scales.setdefault(found[1], scale) != scale:
            raise CalibrationError(f"{path}, line {number} gives '{found[1][:60]}' a second scale", remedy="Calibrate again")
    return Cache(version=head[1], calibrator=head[2], scales=scales)


def scale_of(digits: str) -> float:
    """The float32 whose bits, most significant first, are these hexadecimal digits."""
    (scale,) = struct.unpack(">f", bytes.fromhex(digits.zfill(8)))
    return float(scale)
