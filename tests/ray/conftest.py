"""Pictures for an engine, as three kinds of source."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

BAD = "b/bad.png"


class Pictures(NamedTuple):
    """`files`: key -> encoded file; one of them is no picture."""

    folder: Path
    files: dict[str, bytes]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    files = {BAD: b"no picture"}
    for i in range(90):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (30 + i % 7, 28, 3), np.uint8)).save(buffer, "png")
        files[f"{'abc'[i % 3]}/{i:03}.png"] = buffer.getvalue()
    for key, data in files.items():
        (folder / key).parent.mkdir(exist_ok=True)
        (folder / key).write_bytes(data)
    return Pictures(folder, files)


def shards(files: dict[str, bytes], folder: Path) -> None:
    """WebDataset: three tars whose sample keys repeat from one to the next."""
    for shard in "abc":
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for key in sorted(key for key in files if key.startswith(shard)):
                for name, data in ((key[2:], files[key]), (key[2:].replace(".png", ".cls"), b"3")):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
