"""The smallest app: pictures in, answers out. Needs numpy, Pillow and the engine's own library, no torch and no onnx.

    python examples/classify.py engines/built/fashion-resnet18-int8 photo.png ...
"""

import sys

import numpy as np
from PIL import Image

import toolkit


def main(engine: str, *paths: str) -> None:
    with toolkit.load(engine) as runner:
        pictures = list(paths)
        if not pictures:  # arrays and Pillow images are as good as files
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            pictures = [noise, Image.fromarray(noise)]
        for picture, best in zip(pictures, runner.classify(pictures, top=3), strict=True):
            name = picture if isinstance(picture, str) else type(picture).__name__
            print(name, *(f"{p.label} {p.probability:.1%}" for p in best), sep="  ")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
