"""Trains the packaged reference models on Fashion-MNIST; `packaged/NAME.train.toml` holds everything that decides the result.

    python -m research.train toolkit/packaged/fashion-resnet18.train.toml -o OUT_DIR [--data DIR]

SGD with Nesterov momentum, one-cycle learning rate (Smith, 2018, arXiv:1803.09820), random flips and shifts, label smoothing.
It writes NAME.safetensors (convolutions and the classifier in float16, BatchNorm in float32, the architecture as metadata) and
NAME.log.jsonl, one line an epoch. The accuracy in the last line is that of the file as written, on all 10,000 test images.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads on shared cores cost several times the work

import msgspec
import numpy as np
import torch
from rich.progress import Progress
from safetensors.torch import save
from torch import Tensor, nn

from toolkit.disk.files import write_atomically
from toolkit.errors import ToolkitError
from toolkit.images.dataset import read_idx
from toolkit.reference.resnet import ResNet, Stem

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, in 0..1


class TrainingRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides the weights. `shift` is in pixels; the learning rate is the peak of the one-cycle schedule."""

    name: str
    arch: str
    width: float
    stem: Stem
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    shift: int
    seed: int
    threads: int


def load_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images float32 [N, 1, 28, 28], normalized, and labels int64 [N]; `split` is `train` or `t10k`."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz").astype(np.float32)[:, None]
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz").astype(np.int64)
    return torch.from_numpy((images / 255 - MEAN) / STD), torch.from_numpy(labels)


def augment(images: Tensor, shift: int, random: torch.Generator) -> Tensor:
    """Mirror half of the images [N, C, H, W] and move each by up to `shift` pixels; the border is the background."""
    n, _, height, width = images.shape
    flip = torch.rand(n, generator=random) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    padded = nn.functional.pad(images, (shift,) * 4, value=-MEAN / STD)
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n), generator=random)
    rows = (torch.arange(height) + dy[:, None])[:, None, :, None]
    columns = (torch.arange(width) + dx[:, None])[:, None, None, :]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(images.shape[1])[None, :, None, None], rows, columns]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 in percent."""
    model.eval()
    with torch.inference_mode():
        answers = torch.cat([model(x).argmax(1) for x in torch.split(images, 500)])
    return 100.0 * (answers == labels).sum().item() / len(labels)


def as_stored(model: nn.Module) -> dict[str, Tensor]:
    """The state dict as the file holds it: matrices and kernels in float16, everything else as it is."""
    return {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in model.state_dict().items()}


def optimizer_of(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum; weight decay on matrices and kernels only."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


def fit(model: nn.Module, recipe: TrainingRecipe, images: Tensor, labels: Tensor) -> Iterator[float]:
    """Train, and give the mean loss of each epoch as it ends."""
    random = torch.Generator().manual_seed(recipe.seed)
    optimizer = optimizer_of(model, recipe)
    steps = len(images) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps * recipe.epochs)
    lossfn = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    with Progress() as progress:
        bar = progress.add_task(recipe.name, total=steps * recipe.epochs)
        for _ in range(recipe.epochs):
            model.train()
            total = 0.0
            for index in torch.split(torch.randperm(len(images), generator=random), recipe.batch)[:steps]:
                x = augment(images[index], recipe.shift, random).contiguous(memory_format=torch.channels_last)
                loss = lossfn(model(x), labels[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
                progress.advance(bar)
            yield total / steps


def train(recipe: TrainingRecipe, data: Path, out: Path) -> float:
    """Train, write the weights and the log into `out`, and return the stored model's top-1 in percent. Raises DataError."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    (images, labels), (test_images, test_labels) = load_split(data, "train"), load_split(data, "t10k")
    model = ResNet(recipe.arch, classes=10, channels=1, width=recipe.width, stem=recipe.stem)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    with (out / f"{recipe.name}.log.jsonl").open("w") as log:
        start = time.perf_counter()
        for epoch, loss in enumerate(fit(model, recipe, images, labels), 1):
            top1 = accuracy(model, test_images, test_labels)
            seconds = round(time.perf_counter() - start, 1)
            line = {"epoch": epoch, "loss": round(loss, 4), "top1": top1, "seconds": seconds}
            print(json.dumps(line), file=log, flush=True)
            start = time.perf_counter()
        stored = as_stored(model)
        metadata = {**model.metadata, "seed": str(recipe.seed)}
        write_atomically(out / f"{recipe.name}.safetensors", save(stored, metadata))
        model.load_state_dict(stored)
        top1 = accuracy(model, test_images, test_labels)
        print(json.dumps({"stored": True, "top1": top1, "torch": torch.__version__, "seed": recipe.seed}), file=log)
    return top1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the weights and the log")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    given = parser.parse_args()
    try:
        recipe = msgspec.toml.decode(given.recipe.read_bytes(), type=TrainingRecipe)
        given.out.mkdir(parents=True, exist_ok=True)
        print(f"{recipe.name}: {train(recipe, given.data, given.out):.2f} % top-1")
    except (ToolkitError, OSError, msgspec.DecodeError) as error:
        print(f"train: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
