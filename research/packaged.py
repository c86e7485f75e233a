"""Cuts the packaged data out of Fashion-MNIST (Debian's `dataset-fashion-mnist`): all test images, 2,048 training images.

    python -m research.packaged [/usr/share/datasets/fashion-mnist]

The training images are the first 2,048 that are not, byte for byte, a test image as well: calibration never sees one.
"""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np

from toolkit.images.dataset import PACKAGED, read_idx

CALIBRATION_IMAGES = 2048


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write uint8 [N, ...] as gzipped IDX, the format of MNIST; the same array always gives the same bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), 9, mtime=0))


def main() -> None:
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
    target = PACKAGED
    test = read_idx(source / "t10k-images-idx3-ubyte.gz")
    seen = {image.tobytes() for image in test}
    train = read_idx(source / "train-images-idx3-ubyte.gz")
    labels = read_idx(source / "train-labels-idx1-ubyte.gz")
    keep = [i for i, image in enumerate(train) if image.tobytes() not in seen][:CALIBRATION_IMAGES]
    write_idx(target / "fashion-test-images.idx.gz", test)
    write_idx(target / "fashion-test-labels.idx.gz", read_idx(source / "t10k-labels-idx1-ubyte.gz"))
    write_idx(target / "fashion-train-images.idx.gz", train[keep])
    write_idx(target / "fashion-train-labels.idx.gz", labels[keep])


if __name__ == "__main__":
    main()
