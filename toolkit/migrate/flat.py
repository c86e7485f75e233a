"""ONNX Runtime's `calibration.flatbuffers`, the table that its TensorRT provider reads: tensor and largest magnitude, as text.

FlatBuffers have no magic here and no checksum, and Python's reader follows every offset: so what is read is bounded by the size
of the file, and bytes that make no sense are no table.
"""

from __future__ import annotations

import struct

MOST = 2  # times the file's size: keys and values that overlap in it would make gigabytes of a small file


def rows_of(data: bytes) -> dict[str, str] | None:
    """Tensor -> its magnitude as text; None where the bytes are no such table. A name that stands there twice is none either."""
    from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

    found, taken = dict[str, str](), 0
    try:
        table = TrtTable.GetRootAs(data, 0)
        count = table.DictLength()
        for index in range(count if 4 * count < len(data) else 0):
            row = table.Dict(index)
            key, value = row.Key() or b"", row.Value() or b""
            taken += len(key) + len(value)
            if taken > MOST * len(data) or not key or key.decode() in found:
                return None
            found[key.decode()] = value.decode()
    except (struct.error, IndexError, ValueError, TypeError, OverflowError):
        return None
    return found or None
