"""Range files that are no calibration cache with its first line: what other tools, and scripts, write of a network's tensors.

- A cache whose first line is missing: `tensor: hex` a line, scales as TensorRT has them (`cache.py`).
- Text of `tensor: 5.43` (TensorRT's sampleINT8API) or `tensor 5.43` (ONNX Runtime's `calibration.cache`): largest magnitudes.
- The same as FlatBuffers: ONNX Runtime's `calibration.flatbuffers` (`flat.py`).
- JSON: `{"tensor": 5.43}`, `{"tensor": [-5.43, 5.1]}`, or an object of `min` and `max`, `lowest` and `highest`, `amax`, or
  `scale` without a zero point; bare, or inside what MQBench, PPQ, AIMET and ONNX Runtime wrap around it.

A bare decimal is a magnitude and no scale, as all of these tools have it; what was taken for what is said. Anything else is
refused, by line or tensor: a scale that is taken for a magnitude is wrong by a factor of 127.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.disk.files import decode_json, read_regular
from toolkit.errors import CalibrationError
from toolkit.migrate.cache import BOM, LEAST, LINE, MOST, MOST_BYTES, Cache, is_cache, read_cache, scale_of
from toolkit.migrate.flat import rows_of

SYMMETRIC = 127
DECIMAL = re.compile(r"(?!.*--)(.+?)(?::\s*|\s+)([-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?)")
WRAPPERS = ("tensorrt", "blob_range", "act_quant_info", "activation_encodings", "data", "ranges")  # one inside the other
PAIRS = (("min", "max"), ("lowest", "highest"))
BITS = ("bitwidth", "bits", "num_bits")
KNOWN = "Known are caches of TensorRT, tables of ONNX Runtime, and JSON of magnitudes or [min, max] by tensor"
BARE, ENDS, SCALES = "its numbers were taken for largest magnitudes, not for scales", "the larger end of each range", "scales"
HEADLESS = "which has no first line: scales of symmetric INT8, by an unknown calibrator"
Values = Iterator[tuple[str, float, str]]  # tensor, largest magnitude, what was written of it


def is_table(path: Path) -> bool:
    """Whether it is such a file: JSON, or lines that each end in a number; one that cannot be read is none."""
    try:
        data = _bytes(path)
    except CalibrationError:
        return False
    if b"\0" in data:
        return rows_of(data) is not None
    text = data.decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    every = bool(lines) and all(LINE.fullmatch(line) or DECIMAL.fullmatch(line) for line in lines)
    return every or text.lstrip().startswith("{")


def read_scales(path: Path) -> Cache:
    """Any file of ranges or scales. Raises CalibrationError, which names the line or the tensor that it does not understand."""
    if is_cache(path):
        return read_cache(path)
    data = _bytes(path)
    text = _lines_of(data, path) if b"\0" in data else data.decode("utf-8", errors="replace")
    rows = list(_of_json(text, path) if text.lstrip().startswith("{") else _of_lines(text, path))
    if not rows:
        raise CalibrationError(f"{path} holds no ranges", remedy=KNOWN)
    for name, value, _ in rows:
        if not (value == 0 or LEAST < value < MOST):
            raise CalibrationError(f"{path}: {value:g} is no range of '{name[:60]}'", remedy="Calibrate again: it is damaged")
    scales = {name: value / SYMMETRIC for name, value, _ in rows}
    return Cache("", "", scales, f"{path.name}: {'; '.join(sorted({kind for _, _, kind in rows}))}")


def _bytes(path: Path) -> bytes:
    try:
        return read_regular(path, MOST_BYTES).removeprefix(BOM)
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error.strerror}", remedy="Give the file of the ranges") from error


def _lines_of(data: bytes, path: Path) -> str:
    """FlatBuffers of ONNX Runtime as the lines that it writes beside them."""
    rows = rows_of(data)
    if rows is None:
        beside = "Give the text that is written beside it: ONNX Runtime calls it calibration.cache"
        raise CalibrationError(f"{path} is binary, and no file of ranges that is known", remedy=beside)
    return "".join(f"{name} {value}\n" for name, value in rows.items())


def _of_lines(text: str, path: Path) -> Values:
    """Scales, or magnitudes: all of one kind."""
    found, kinds = dict[str, float](), set[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        decimal, hexadecimal = DECIMAL.fullmatch(line.strip()), LINE.fullmatch(line.strip())
        if decimal is not None:
            name, value, kind = decimal[1], float(decimal[2]), BARE
        elif hexadecimal is not None:
            name, value, kind = hexadecimal[1], scale_of(hexadecimal[2]) * SYMMETRIC, HEADLESS
        else:
            raise CalibrationError(f"{path}, line {number} is no range: {line.strip()[:60]!r}", remedy=KNOWN)
        if kind == HEADLESS and not (value == 0 or LEAST < value < MOST):
            what = f"{path}, line {number}: '{line.strip()[-20:]}' is neither a float32 in hexadecimal nor a decimal fraction"
            raise CalibrationError(what, remedy=KNOWN)
        kinds.add(kind)
        if found.setdefault(name, value) != value:
            raise CalibrationError(f"{path}, line {number} gives '{name[:60]}' a second range", remedy="Calibrate again")
    if len(kinds) > 1:
        raise CalibrationError(f"{path} has both hexadecimal scales and decimal fractions", remedy="Give a file of one kind")
    yield from ((name, value, kind) for name, value in found.items() for kind in kinds)


def _of_json(text: str, path: Path) -> Values:
    try:
        table = decode_json(text.encode())
    except ValueError as error:
        raise CalibrationError(f"{path} is no JSON: {error}", remedy=KNOWN) from error
    if isinstance(table, dict) and {"origin", "tensors"} <= table.keys():
        raise CalibrationError(f"{path} is the toolkit's own", remedy=f'Set ranges = "{path}" in [calibration] of a recipe')
    while isinstance(table, dict) and (inner := next((table[key] for key in WRAPPERS if isinstance(table.get(key), dict)), None)):
        table = inner
    for name, entry in table.items() if isinstance(table, dict) else ():
        found = _magnitude(entry, f"{path}, '{name[:60]}'")
        if found is None:
            what = f"{path} tells no range of '{name[:60]}' in a form that is known: {str(entry)[:60]}"
            raise CalibrationError(what, remedy=KNOWN)
        yield name, *found


def _magnitude(entry: Any, where: str) -> tuple[float, str] | None:
    """The largest magnitude that an entry tells, and how; None where it is in no form that is known."""
    if isinstance(entry, list) and len(entry) == 1:
        entry = entry[0]
    if isinstance(entry, dict) and isinstance(entry.get("data"), dict):
        entry = entry["data"]
    if isinstance(entry, list) and len(entry) == 2:
        entry = dict(zip(PAIRS[0], entry, strict=True))
    if not isinstance(entry, dict):
        number = _number(entry)
        return None if number is None else (number, BARE)
    for key in BITS:
        if entry.get(key, 8) not in (8, "8"):
            raise CalibrationError(f"{where} is of {entry[key]} bits, and INT8 has 8", remedy="Calibrate again, for INT8")
    for low, high in PAIRS:
        ends = _number(entry.get(low)), _number(entry.get(high))
        if ends[0] is not None and ends[1] is not None:
            return max(abs(ends[0]), abs(ends[1])), ENDS
    if (amax := _number(entry.get("amax"))) is not None:
        return amax, ENDS
    scale, zero = _number(entry.get("scale")), _number(entry.get("zero_point", 0))
    if scale is not None and zero:
        raise CalibrationError(f"{where} has a zero point, and TensorRT's INT8 is symmetric", remedy="Calibrate again: symmetric")
    return None if scale is None else (scale * SYMMETRIC, SCALES)


def _number(value: Any) -> float | None:
    """A number, one in text, or the one in an array of ONNX Runtime's; None for anything else."""
    if isinstance(value, dict) and "data" in value:
        value = value["data"]
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value) if math.isfinite(float(value)) else None
    except ValueError:
        return None
