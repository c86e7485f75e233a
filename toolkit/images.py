from __future__ import annotations
import gzip, struct
from pathlib import Path
import numpy as np
def read_idx(path: Path) -> np.ndarray:
    raw = gzip.decompress(path.read_bytes())
    ndim = raw[3]
    shape = struct.unpack(f">{ndim}I", raw[4:4+4*ndim])
    return np.frombuffer(raw, np.uint8, offset=4+4*ndim).reshape(shape)
