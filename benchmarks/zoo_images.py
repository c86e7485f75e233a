"""The zoo's pictures: crops of the photographs inside scikit-learn and scikit-image, and drawn lines and pages of text.

folder/photographs/{calibration,compare,more}/CLASS/NNN.png   which of six photographs a crop is from
folder/lines/...                                          a line of text: upright, or turned by 180 degrees
folder/pages/...                                          a page: turned by 0, 90, 180 or 270 degrees
folder/fit-SIDE.npy, folder/fit-labels.npy                uint8 [n, SIDE, SIDE, 3], int64 [n]: to warm and fit random networks
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CALIBRATION, COMPARE, MORE, FIT = 64, 64, 448, 96  # MORE: beside COMPARE, where tools are compared by agreement
SMALLEST = 0.5  # the least side of a crop, as a share of the photograph's shorter side
WORDS = ("deploy", "engine", "image", "tensor", "layer", "scale", "batch", "street", "number", "invoice", "total", "address")


def crops(count: int, seed: int, side: int) -> Iterator[tuple[Image.Image, int]]:
    """`count` square crops of the six photographs by turns, half of them mirrored, with the number of the photograph."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    photos = [*load_sample_images().images, *(getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket"))]
    random = np.random.default_rng(seed)
    for index in range(count):
        photo = photos[index % len(photos)]
        height, width = photo.shape[:2]
        edge = int(random.integers(int(SMALLEST * min(height, width)), min(height, width) + 1))
        top, left = int(random.integers(height - edge + 1)), int(random.integers(width - edge + 1))
        crop = photo[top : top + edge, left : left + edge]
        crop = crop[:, ::-1] if random.random() < 0.5 else crop
        yield Image.fromarray(np.ascontiguousarray(crop)).resize((side, side), Image.Resampling.BILINEAR), index % len(photos)


def lines(count: int, seed: int) -> Iterator[tuple[Image.Image, int]]:
    """`count` lines of dark words on light paper, 240 x 48, every second one upside down."""
    random = np.random.default_rng(seed)
    for index in range(count):
        line = Image.new("RGB", (240, 48), tuple(random.integers(190, 255, 3).tolist()))
        font = ImageFont.load_default(size=int(random.integers(24, 34)))
        ink = tuple(random.integers(0, 110, 3).tolist())
        ImageDraw.Draw(line).text((8, int(random.integers(0, 8))), " ".join(random.choice(WORDS, 3)), fill=ink, font=font)
        yield line.rotate(180 * (index % 2)), index % 2


def pages(count: int, seed: int) -> Iterator[tuple[Image.Image, int]]:
    """`count` pages of dark words on light paper, 320 x 320, turned by 0, 90, 180 and 270 degrees by turns."""
    random = np.random.default_rng(seed)
    for index in range(count):
        page = Image.new("RGB", (320, 320), tuple(random.integers(200, 255, 3).tolist()))
        draw, size = ImageDraw.Draw(page), int(random.integers(14, 24))
        font, ink = ImageFont.load_default(size=size), tuple(random.integers(0, 110, 3).tolist())
        for top in range(16, 290, size + 8):
            draw.text((16, top), " ".join(random.choice(WORDS, int(random.integers(2, 5)))), fill=ink, font=font)
        yield page.rotate(90 * (index % 4)), index % 4


def prepare(folder: Path) -> None:
    """Write what is not there yet."""
    if (folder / "fit-labels.npy").exists() and (folder / "pages/more").exists():
        return
    kinds = {"photographs": lambda n, seed: crops(n, seed, 128), "lines": lines, "pages": pages}
    for kind, make in kinds.items():
        for split, count, seed in (("calibration", CALIBRATION, 1), ("compare", COMPARE, 2), ("more", MORE, 4)):
            for index, (picture, label) in enumerate(make(count, seed)):
                path = folder / kind / split / str(label) / f"{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    for side in (32, 64, 96):
        made = list(crops(FIT, 3, side))
        np.save(folder / f"fit-{side}.npy", np.stack([np.asarray(picture) for picture, _ in made]))
    np.save(folder / "fit-labels.npy", np.array([label for _, label in made]))
