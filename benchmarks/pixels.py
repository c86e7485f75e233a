"""From pictures to answers: preprocessing inside the engine beside outside it, and beside what others do. One command:

    python benchmarks/pixels.py [--rounds 15] [--arch resnet18] [-o benchmarks/results/pixels.json]

Two tables, raw samples kept:

1. end to end, `classify` of decoded pictures (Pillow images of 500 x 375) at batch 1 and 8: the engine that takes pixels, the
   same one that takes preprocessed floats, and that engine fed as this project did before it read pictures on threads. ResNet
   layouts with random weights: what they answer does not matter here.
2. from JPEG files to the network's input, without an engine, images a second: `runner.preprocess`, beside Pillow alone in as
   many threads (decode, resize, crop; no floats: the bound), PyTorch's DataLoader with torchvision's transforms, torchvision.v2
   on tensors, and OpenCV; photographs of 500 x 375 and of 3000 x 2250, the latter with `preprocess.draft` too.

Peers that are not installed are named and left out (`pip install torchvision opencv-python-headless`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from side_by_side import calls, median_interval, ratio, side_by_side

import toolkit
from toolkit.cpu import cores
from toolkit.disk.files import write_atomically
from toolkit.engine.engine import Engine
from toolkit.harness.environment import read_environment
from toolkit.images.picture import cropped, open_picture, scaled
from toolkit.recipe import Precision, Preprocess, Recipe
from toolkit.runtime.runner import Runner

HOW = Preprocess(resize=256)
SMALL, LARGE = (500, 375), (3000, 2250)
CALLS, FILES = 3, 16
BATCHES = (1, 8)


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Smooth areas, edges and grain, so that a JPEG of it takes about as long to decode as a photograph's."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.NEAREST)
    blurred = np.asarray(coarse.filter(ImageFilter.GaussianBlur(2)), np.int16)
    grain = random.normal(0, 6, (size[1], size[0], 1))
    return Image.fromarray(np.clip(blurred + grain, 0, 255).astype(np.uint8))


def files_in(folder: Path, size: tuple[int, int], count: int) -> list[str]:
    folder.mkdir(parents=True)
    for i in range(count):
        picture(i, size).save(folder / f"{i:02}.jpg", quality=90)
    return [str(path) for path in sorted(folder.iterdir())]


def engines(folder: Path, arch: str, calibration: str) -> dict[str, Engine]:
    found = {}
    for precision in ("fp32", "int8"):
        for inside in (False, True):
            name = f"{precision}-{'inside' if inside else 'outside'}"
            recipe = Recipe.of("random:0", arch=arch, resize=HOW.resize, calibration=calibration, inside=inside, name=name)
            if precision == "int8":
                settled = Precision(int8=True, equalize="none", weights="absmax", bias_correction=False)
                minmax = msgspec.structs.replace(recipe.calibration, method="minmax")
                recipe = msgspec.structs.replace(recipe, precision=settled, calibration=minmax)
            print(f"build {recipe.name}", file=sys.stderr, flush=True)
            found[recipe.name] = toolkit.build(recipe, out=folder, proof=False)[0]
    return found


def before(runner: Runner, pictures: Sequence[Image.Image]) -> object:
    """As it was: one picture after the other, floats on [H, W, C] and a copy to [C, H, W]."""
    mean, std = np.array(HOW.mean, np.float32), np.array(HOW.std, np.float32)
    images = []
    for one in pictures:
        image = open_picture(one, HOW.color)
        image = image.resize(scaled(image.size, HOW.resize or 0, ""), Image.Resampling.BILINEAR)
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        pixels = (pixels * np.float32(HOW.scale) - mean) / std
        images.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return runner.predictions(runner(np.stack(images)))


def end_to_end(built: dict[str, Engine], rounds: int) -> dict[str, Any]:
    pictures = [picture(i, SMALL) for i in range(max(BATCHES))]
    runners = {name: engine.runner() for name, engine in built.items()}
    found = {}
    for batch in BATCHES:
        print(f"end to end, batch {batch}", file=sys.stderr, flush=True)
        some = pictures[:batch]
        subjects: dict[str, Callable[[], list[int]]] = {}
        for name, runner in runners.items():
            subjects[name] = partial(calls, partial(runner.classify, some), CALLS, lead=1)
            if name.endswith("outside"):
                subjects[f"{name.partition('-')[0]}-before"] = partial(calls, partial(before, runner, some), CALLS, lead=1)
        found[f"batch {batch}"] = side_by_side(subjects, rounds)
    for runner in runners.values():
        runner.close()
    return found


def bare_pillow(files: Sequence[str], how: Preprocess) -> object:
    """What Pillow can do on this machine: decode, resize, crop."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(lambda file: np.asarray(cropped(file, how)), files))


class _Folder:
    def __init__(self, files: Sequence[str], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB"))


def dataloader(files: Sequence[str], v2: bool) -> Callable[[], object]:
    """PyTorch's DataLoader with a worker process a core, kept alive over rounds."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms as v1
    from torchvision.transforms import v2 as new

    if v2:
        steps = [new.ToImage(), new.Resize(256, antialias=True), new.CenterCrop(224), new.ToDtype(torch.float32, scale=True)]
        transform: Any = new.Compose([*steps, new.Normalize(HOW.mean, HOW.std)])
    else:
        transform = v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor(), v1.Normalize(HOW.mean, HOW.std)])
    loader: Any = DataLoader(_Folder(files, transform), batch_size=8, num_workers=cores(), persistent_workers=True)  # type: ignore[arg-type]
    return lambda: list(loader)


def opencv(files: Sequence[str]) -> object:
    import cv2

    cv2.setNumThreads(1)
    mean, std = np.array(HOW.mean, np.float32), np.array(HOW.std, np.float32)

    def one(file: str) -> Any:
        pixels = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB)
        pixels = cv2.resize(pixels, scaled((pixels.shape[1], pixels.shape[0]), 256, file), interpolation=cv2.INTER_LINEAR)
        left, top = (pixels.shape[1] - 224) // 2, (pixels.shape[0] - 224) // 2
        cut = pixels[top : top + 224, left : left + 224].astype(np.float32)
        return np.ascontiguousarray(((cut / 255 - mean) / std).transpose(2, 0, 1))

    with ThreadPoolExecutor(cores()) as pool:
        return np.stack(list(pool.map(one, files)))


def usable(name: str) -> bool:
    """Whether a peer is installed and imports: torchvision does not beside a torch of another build."""
    try:
        import_module(name)
    except Exception as error:
        print(f"left out: {name}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def decoding(built: dict[str, Engine], folder: Path, rounds: int) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    absent = [name for name in ("torchvision", "cv2") if not usable(name)]
    for label, size, count in (("500 x 375", SMALL, FILES), ("3000 x 2250", LARGE, 4)):
        print(f"JPEG files of {label}", file=sys.stderr, flush=True)
        files = files_in(folder / label, size, count)
        subjects: dict[str, Callable[[], object]] = {"Pillow alone": partial(bare_pillow, files, HOW)}
        for name in ("fp32-inside", "fp32-outside"):
            subjects[f"toolkit, {name.partition('-')[2]}"] = partial(built[name].runner().preprocess, files)
        if size == LARGE:
            drafted = msgspec.structs.replace(HOW, draft=True)
            runner = built["fp32-inside"].runner()
            runner.manifest = msgspec.structs.replace(
                runner.manifest, preprocess=msgspec.structs.replace(runner.manifest.preprocess, draft=True)
            )
            subjects |= {
                "Pillow alone, draft": partial(bare_pillow, files, drafted),
                "toolkit, draft": partial(runner.preprocess, files),
            }
        if "torchvision" not in absent:
            subjects |= {"DataLoader, transforms": dataloader(files, False), "DataLoader, v2 on tensors": dataloader(files, True)}
        if "cv2" not in absent:
            subjects["OpenCV (no antialiasing)"] = partial(opencv, files)
        timed = {name: partial(calls, call, 1) for name, call in subjects.items()}
        found[label] = {"images": count, "samples": side_by_side(timed, rounds)}
    return found, absent


def show(results: dict[str, Any], console: Console) -> None:
    for batch, samples in results["end_to_end"].items():
        table = Table(title=f"classify of decoded pictures, {batch}")
        for column in ("subject", "median ms", "over `before`"):
            table.add_column(column, justify="left" if column == "subject" else "right")
        for name in sorted(samples):
            base = samples[f"{name.partition('-')[0]}-before"]
            times, low, high = ratio(base, samples[name])
            flat = np.concatenate(samples[name]) / 1e6
            table.add_row(name, f"{np.median(flat):.2f}", f"{times:.2f}x [{low:.2f}, {high:.2f}]")
        console.print(table)
    for size, found in results["decoding"].items():
        table = Table(title=f"JPEG files of {size} to the network's input")
        for column in ("subject", "images/s", "of Pillow alone"):
            table.add_column(column, justify="left" if column == "subject" else "right")
        for name, samples in found["samples"].items():
            bound = found["samples"]["Pillow alone, draft" if "draft" in name else "Pillow alone"]
            seconds = np.array(samples, np.float64).ravel() / 1e9
            shares = np.array(bound, np.float64).ravel() / np.array(samples, np.float64).ravel()
            low, high = median_interval(shares)
            table.add_row(
                name, f"{found['images'] / np.median(seconds):.0f}", f"{np.median(shares):.0%} [{low:.0%}, {high:.0%}]"
            )
        console.print(table)
    for name in results["absent"]:
        console.print(f"left out: {name} is not here")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files_in(folder / "calibration", SMALL, 16)
        built = engines(folder / "engines", options.arch, str(folder / "calibration"))
        decoded, absent = decoding(built, folder, options.rounds)
        results = {
            "environment": msgspec.to_builtins(read_environment()),
            "arch": options.arch,
            "cores": cores(),
            "end_to_end": end_to_end(built, options.rounds),
            "decoding": decoded,
            "absent": absent,
        }
    if options.output:
        write_atomically(options.output, json.dumps(results, indent=1).encode() + b"\n")
    show(results, Console())


if __name__ == "__main__":
    main()
