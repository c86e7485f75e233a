"""A file of results as a bench leaves it, with names that try to break out of the page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.answers import Answers
from toolkit.harness.environment import read_environment
from toolkit.harness.layers import Layer, LayerTimes
from toolkit.harness.measurement import Block, Flag, Measurement
from toolkit.harness.results import Results
from toolkit.harness.roofline import Peaks, Work

HOSTILE = "int8 <script>alert('x')</script> & \"quoted\""
ENGINES = {"reference": ("fp32", 9.0), "fp32": ("fp32", 5.5), "fp16": ("fp16", 5.6), HOSTILE: ("int8", 2.4)}
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "<b>boot</b>")


def measure(name: str, precision: str, ms: float, batch: int, random: np.random.Generator) -> Measurement:
    """200 samples around `ms` an image, in 10 blocks, with the long tail that timings have."""
    blocks = []
    for block in range(10):
        samples = 1e6 * ms * batch**0.9 * (1 + random.gamma(1.5, 0.02, 20))
        blocks.append(Block(at_ns=block * 10**9, samples_ns=tuple(samples.astype(int).tolist())))
    total = sum(sum(block.samples_ns) for block in blocks)
    busy = Flag(trouble="other-load", text="other processes used 31 % of the cores", remedy="Stop them")
    return Measurement(
        engine=name,
        precision=precision,
        target="cpu",
        batch=batch,
        clock="with-transfers",
        started="2026-01-02T03:04:05+00:00",
        blocks=tuple(blocks),
        images=200 * batch,
        duration_ns=total,
        interleaved_with=tuple(other for other in ENGINES if other != name),
        flags=(busy,) if precision == "fp16" else (),
    )


@pytest.fixture(scope="session")
def results() -> Results:
    """Four engines on 600 labelled images, batches 1 to 16; the INT8 engine errs a little, FP16 never."""
    random = np.random.default_rng(5)
    labels = random.integers(0, 10, 600)
    reference = random.standard_normal((600, 10)).astype(np.float32) + 5 * np.eye(10, dtype=np.float32)[labels]
    noise = random.standard_normal(reference.shape).astype(np.float32)
    logits = {name: reference + (0.4 * noise if precision == "int8" else 0) for name, (precision, _) in ENGINES.items()}
    work = Work(macs=4_000_000, weight_bytes=700_000, activation_bytes=90_000)
    kinds = ("QLinearAdd", "QLinearConv", "QLinearConv")
    layers = tuple(Layer(name=f"layer{i}.conv", kind=kinds[i % 3], milliseconds=0.1 * i) for i in range(1, 20))
    return Results(
        environment=read_environment(),
        measurements=tuple(measure(name, *ENGINES[name], batch, random) for name in ENGINES for batch in (1, 4, 16)),
        answers=tuple(Answers.of(name, "abc", logits[name], labels) for name in ENGINES),
        verdicts=tuple(
            compare_accuracy(reference, logits[name], labels, 2.0, 0.9, name=name, against="reference", classes=CLASSES)
            for name in ENGINES
            if name != "reference"
        ),
        manifests={name: {"name": name, "precision": p, "classes": CLASSES, "device": "CPU"} for name, (p, _) in ENGINES.items()},
        peaks=Peaks(macs={"fp32": 4e9, "int8": 1.2e10}, bytes=2e10, threads=2, how="stated by the test"),
        work=dict.fromkeys(ENGINES, work),
        layers=(LayerTimes(engine=HOSTILE, batch=1, runs=10, layers=layers),),
        failures={"fp8 <img src=x onerror=alert(1)>": "the engine ended after 3 of 200 calls"},
    )


@pytest.fixture(scope="session")
def pictures() -> Callable[[str], Callable[[int], object] | None]:
    """Ways to the pictures of the data set `abc`, as 28 x 28 grey images."""
    from PIL import Image

    def picture(index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(0, 255, (28, 28), dtype=np.uint8))

    return {"abc": picture}.get
