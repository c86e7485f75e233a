"""Peers side by side: the same full-size ResNet-50, images and threads, each peer in a process of its own.

    .venv/bin/python benchmarks/peers.py

No ImageNet weights come in a package, so the network has random kernels with sane BatchNorm statistics and a last layer that is
fitted, in closed form, to tell six photographs apart by crops of them. Accuracy is then a real one, on crops that neither the
fit nor the calibration saw. `--weights` takes any other ResNet-50's, whose answers are then compared without labels.

One block of calls runs at a time, on one peer, in an order shuffled anew in each round; the others wait on a pipe, and what
processor time they use meanwhile is recorded. A ratio is that of two medians in the same round; its interval comes from 2,000
bootstrap samples of rounds. Raw samples go to benchmarks/results/peers-DEVICE.json, the table beside it as Markdown.
OpenVINO and NNCF get an environment of their own, .peers/openvino, made on the first run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from side_by_side import ratio, shuffled

from toolkit.disk.files import write_atomically
from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.answers import snr
from toolkit.harness.environment import read_environment
from toolkit.orders import build_all
from toolkit.recipe import Accept, Build, Calibration, Precision, Preprocess, Recipe, Reference

if TYPE_CHECKING:
    from PIL import Image

HERE = Path(__file__).parent
SCRATCH = HERE.parent / ".peers" / "work"
PEERS = HERE.parent / ".peers" / "openvino"
PACKAGES = ("openvino==2026.4.1", "nncf==3.4.0")
HOW = Preprocess(resize=256)
BASE = "ONNX Runtime FP32"
PHOTOGRAPHS = 6
SMALLEST = 0.75  # of a photograph's shorter side: the smallest crop
CALIBRATION, FITTING = 128, 192
BUDGET = Accept(max_top1_drop=1.0, min_agreement=0.95)  # points of top-1: what 300 images can tell

Array = NDArray[np.float32]
Rounds = Sequence[Sequence[float]]  # the time of each call, a list a round


class Peer:
    """A worker process and its samples, a list of seconds a round."""

    def __init__(self, name: str, python: Path, kind: str, model: str, images: Path, threads: int, batch: int) -> None:
        self.name, self.rounds, self.idle = name, [], []  # type: ignore[var-annotated]
        self.answers = SCRATCH / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.npy"
        command = [python, HERE / "peer_worker.py", kind, model, images, self.answers, threads, batch]
        self.process = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):  # a library may print before
                return json.loads(line)  # type: ignore[no-any-return]
        raise SystemExit(f"error: {self.name} ended with code {self.process.wait()}; its own message stands above")

    def run(self, calls: int, keep: bool = True) -> None:
        """One block; its first call warms caches that another peer has emptied, and does not count."""
        assert self.process.stdin
        self.process.stdin.write(f"{calls + 1}\n")
        self.process.stdin.flush()
        answer = self._read()
        if keep:
            self.rounds.append(answer["seconds"][1:])
            self.idle.append(answer["idle_cpu"])

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)


def crops(count: int, seed: int) -> Iterator[Image.Image]:
    """Crops of the photographs that come with scikit-learn and scikit-image, by turns."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket")
    photos = [*load_sample_images().images, *(getattr(data, name)() for name in names)]
    random = np.random.default_rng(seed)
    for i in range(count):
        photo = photos[i % len(photos)]
        height, width = photo.shape[:2]
        side = int(random.integers(int(SMALLEST * min(height, width)), min(height, width) + 1))
        top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
        crop = photo[top : top + side, left : left + side]
        yield Image.fromarray(crop[:, ::-1] if random.random() < 0.5 else crop)


def photographs(count: int, seed: int) -> Array:
    """The crops as the network sees them, float32 [count, 3, 224, 224]."""
    from toolkit.images.picture import preprocess

    return np.stack([preprocess(crop, HOW) for crop in crops(count, seed)])


def labels(count: int) -> NDArray[np.int64]:
    """Which photograph each of `photographs` is from."""
    return np.arange(count) % PHOTOGRAPHS


def fitted() -> Path:
    """A ResNet-50 of random kernels, and a last layer by ridge regression of the photograph on the pooled features; kept."""
    path = SCRATCH / f"fitted-on-{FITTING}-of-{SMALLEST:g}.safetensors"
    if path.exists():
        return path
    import torch
    from safetensors.torch import save_file

    from toolkit.reference.weights import load_reference

    net = load_reference(Reference(arch="resnet50", weights="random:0"), classes=PHOTOGRAPHS)
    images, fc = torch.from_numpy(photographs(FITTING, 3)), net.fc
    net.fc = torch.nn.Identity()
    with torch.inference_mode():
        features = torch.cat([net(part) for part in images.split(16)]).double()
    one_hot = torch.eye(PHOTOGRAPHS, dtype=torch.float64)[torch.from_numpy(labels(FITTING))]
    mean = features.mean(0)
    centerd = features - mean
    ridge = 1e-2 * centerd.square().sum() / FITTING * torch.eye(FITTING, dtype=torch.float64)
    weight = centerd.T @ torch.linalg.solve(centerd @ centerd.T + ridge, one_hot - one_hot.mean(0))
    net.fc = fc
    net.load_state_dict({**net.state_dict(), "fc.weight": weight.T.float(), "fc.bias": (one_hot.mean(0) - mean @ weight).float()})
    save_file(net.state_dict(), path.with_suffix(".part"))
    return path.with_suffix(".part").replace(path)  # never half a file under the name that is looked for


def prepare(weights: str, threads: int, batch: int, images: int) -> dict[str, tuple[str, str]]:
    """Images, graphs and engines of all peers -> name: (kind, model)."""
    np.save(SCRATCH / "calibration.npy", photographs(CALIBRATION, 1))
    np.save(SCRATCH / "evaluation.npy", photographs(images, 2))
    int8 = Precision(int8=True)
    kinds = {"FP32": (Precision(), "cpu"), "FP16": (Precision(compute="fp16"), "cpu"), "INT8": (int8, "cpu")}
    if find_spec("openvino"):
        kinds["INT8 for OpenVINO"] = (int8, "openvino")
    recipes = [
        Recipe(
            name=f"resnet50-{name.lower().replace(' ', '-')}",
            reference=Reference(arch="resnet50", weights=weights),
            preprocess=HOW,
            precision=precision,
            calibration=Calibration(data=str(SCRATCH / "calibration.npy"), images=CALIBRATION),
            build=Build(threads=threads, target=target, batch=(1, batch, max(batch, 32))),
        )
        for name, (precision, target) in kinds.items()
    ]
    built = dict(zip(kinds, (folder for folder, _ in build_all(recipes, None, SCRATCH)), strict=True))
    onnx = built["FP32"] / "model.onnx"
    ours = {f"toolkit {name}": ("engine", str(folder)) for name, folder in built.items()}
    return {
        "PyTorch eager": ("eager", weights),
        "PyTorch channels_last": ("channels-last", weights),
        "torch.compile, freezing": ("compile", weights),
        BASE: ("onnxruntime", str(onnx)),
        "OpenVINO FP32": ("openvino", str(onnx)),
        "OpenVINO INT8 (NNCF)": ("openvino", str(openvino_int8(onnx))),
        **ours,
    }


def openvino_int8(onnx: Path) -> Path:
    """NNCF's INT8 of the same graph from the same calibration images."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    output = SCRATCH / "openvino-int8.xml"
    worker = [python, HERE / "peer_worker.py", "quantize", onnx, SCRATCH / "calibration.npy", output, "0", "0"]
    subprocess.run([*map(str, worker)], check=True, stdout=subprocess.DEVNULL)
    return output


def rows(peers: list[Peer], truth: NDArray[np.int64] | None) -> list[dict[str, Any]]:
    """What the table says of each peer."""
    by_name = {peer.name: peer for peer in peers}
    reference = np.load(peers[0].answers)
    found = []
    for peer in peers:
        logits = np.load(peer.answers)
        verdict = compare_accuracy(reference, logits, truth, BUDGET, name=peer.name, against=peers[0].name)
        others = ("PyTorch eager", BASE, "OpenVINO INT8 (NNCF)")
        speed = {other: ratio(by_name[other].rounds, peer.rounds) for other in others if other in by_name}
        flat = np.concatenate(peer.rounds) * 1e3
        found.append(
            {
                "peer": peer.name,
                **peer.version,
                "p50_ms": float(np.median(flat)),
                "p99_ms": float(np.quantile(flat, 0.99)),
                "ratios": speed,
                "agreement": verdict.agreement,
                "top1": verdict.top1[1] if verdict.top1 else None,
                "verdict": verdict.text,
                "word": verdict.word,
                "logit_snr_db": snr(reference, logits),
                "idle_cpu_share": sum(peer.idle[1:]) / max(1e-9, sum(sum(map(sum, p.rounds)) for p in peers)),
            }
        )
    return found


def markdown(found: list[dict[str, Any]], device: str, given: argparse.Namespace) -> str:
    """The table for the README."""
    lines = [
        f"ResNet-50, 224x224, batch {given.batch}, {given.threads} threads, {device}; {given.rounds} shuffled rounds.",
        "Ratios: times as fast as the column's peer, with 95 % intervals. Top-1, its verdict (margin "
        f"{BUDGET.max_top1_drop:g} point) and the SNR of the logits: against PyTorch eager, on {given.images} crops of",
        "photographs that calibration never saw.",
        "",
        "| | p50 ms | x PyTorch eager | x ONNX Runtime FP32 | x OpenVINO INT8 | top-1 | verdict | SNR |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in found:
        cells = [f"{m:.2f} [{low:.2f}, {high:.2f}]" for m, low, high in row["ratios"].values()]
        snr_text = "exact" if row["logit_snr_db"] >= 120 else f"{row['logit_snr_db']:.1f} dB"
        name = f"{row['peer']} ({row['version']})" if not row["peer"].startswith("toolkit") else f"**{row['peer']}**"
        top1 = "-" if row["top1"] is None else f"{row['top1']:.2%}"
        cells += [top1, row["word"], snr_text]
        lines.append(f"| {name} | {row['p50_ms']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--weights", help="of another ResNet-50, as in a recipe")
    ask.add_argument("--rounds", type=int, default=30)
    ask.add_argument("--calls", type=int, default=6, help="that count in each block")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--batch", type=int, default=1)
    ask.add_argument("--images", type=int, default=300, help="that the answers are compared on")
    ask.add_argument("--only", help="a part of the peers' names, such as INT8; PyTorch eager and the baseline always run")
    ask.add_argument("--output", type=Path, help="default: benchmarks/results/peers-DEVICE.json")
    given = ask.parse_args()
    where = read_environment()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    models = prepare(given.weights or str(fitted()), given.threads, given.batch, given.images)
    chosen = {n: m for n, m in models.items() if not given.only or given.only in n or n in ("PyTorch eager", BASE)}
    peers = []
    for name, (kind, model) in track(chosen.items(), "starting peers"):
        python = PEERS / "bin" / "python" if kind == "openvino" else Path(sys.executable)
        peers.append(Peer(name, python, kind, model, SCRATCH / "evaluation.npy", given.threads, given.batch))
    by_name = {peer.name: peer for peer in peers}
    for turn, name in track(shuffled(list(by_name), given.rounds + 1), "measuring", total=len(peers) * (given.rounds + 1)):
        by_name[name].run(given.calls, keep=turn > 0)
    for peer in peers:
        peer.close()
    found = rows(peers, labels(given.images) if given.weights is None else None)
    text = markdown(found, where.device, given)
    slug = re.sub("[^a-z0-9]+", "-", where.device.lower()).strip("-")
    output = given.output or HERE / "results" / f"peers-{slug}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    raw = {
        "version": 1,
        "environment": msgspec.to_builtins(where),
        "settings": {key: value for key, value in vars(given).items() if key != "output"},
        "rows": found,
        "samples_s": {peer.name: peer.rounds for peer in peers},
    }
    write_atomically(output, json.dumps(raw, indent=1).encode() + b"\n")
    write_atomically(output.with_suffix(".md"), text.encode())
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    print(f"raw samples: {output}")


if __name__ == "__main__":
    main()
