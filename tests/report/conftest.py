"""A file of results as a bench leaves it, with names that try to break out of the page."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from toolkit.calibration.histogram import Histogram
from toolkit.calibration.ranges import Origin, Ranges, TensorRange
from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.answers import Answers
from toolkit.harness.conditions import Moment
from toolkit.harness.environment import read_environment
from toolkit.harness.footprint import Footprint
from toolkit.harness.layers import Layer, LayerTimes, NetworkLayer
from toolkit.harness.measurement import Block, Flag, Measurement
from toolkit.harness.results import Results
from toolkit.harness.roofline import Peaks, Work
from toolkit.recipe import Accept

HOSTILE = "int8 <script>alert('x')</script> & \"quoted\""
ENGINES = {"reference": ("fp32", 9.0), "fp32": ("fp32", 5.5), "fp16": ("fp16", 5.6), HOSTILE: ("int8", 2.4)}
BUDGET = Accept(max_top1_drop=2.0, min_agreement=0.9)
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "<b>boot</b>")


def measure(name: str, precision: str, ms: float, batch: int, random: np.random.Generator) -> Measurement:
    """200 samples around `ms` an image, in 10 blocks, with the long tail that timings have."""
    blocks = []
    for block in range(10):
        samples = 1e6 * ms * batch**0.9 * (1 + random.gamma(1.5, 0.02, 20))
        taken = tuple(samples.astype(int).tolist())
        blocks.append(Block(at_ns=block * 10**9, samples_ns=taken, yardstick_ns=(400_000 + block * 1000,)))
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


def ranges(random: np.random.Generator) -> Ranges:
    """Of two tensors, the second with a long tail on which the methods differ."""
    tensors = {}
    for name, scale in (("calm", 0.0), ("<i>wild</i>", 30.0)):
        histogram = Histogram()
        tail = 1 + scale * (random.random(20_000) > 0.999)
        histogram.add(np.maximum(random.standard_normal(20_000) * tail, 0).astype(np.float32))
        tensors[name] = TensorRange.of(histogram)
    return Ranges(origin=Origin(layers="l", weights="w"), images=8, tensors=tensors)


@pytest.fixture(scope="session")
def results() -> Results:
    """Four engines on 600 labeled images, batches 1 to 16; the INT8 engine errs a little, FP16 never."""
    random = np.random.default_rng(5)
    labels = random.integers(0, 10, 600)
    reference = random.standard_normal((600, 10)).astype(np.float32) + 5 * np.eye(10, dtype=np.float32)[labels]
    noise = random.standard_normal(reference.shape).astype(np.float32)
    logits = {name: reference + (0.4 * noise if precision == "int8" else 0) for name, (precision, _) in ENGINES.items()}
    work = Work(macs=4_000_000, weight_bytes=700_000, activation_bytes=90_000)
    kinds = ("QLinearAdd", "QLinearConv", "QLinearConv")
    layers = tuple(
        Layer(name=f"layer{i}.conv_token_{i}", kind=kinds[i % 3], milliseconds=0.1 * i, of=f"layer{i}.conv") for i in range(1, 20)
    )
    network = tuple(
        NetworkLayer(name=f"layer{i}.conv", kind="Conv", precision="int8" if i > 1 else "fp32", reads=(f"layer{i - 1}.conv",))
        for i in range(1, 20)
    )
    moments = tuple(Moment(at_ns=i * 10**9, other=0.02 * i, steal=0.0, mhz=2600.0 + i, load=1.0) for i in range(1, 10))
    return Results(
        environment=read_environment(),
        measurements=tuple(measure(name, *ENGINES[name], batch, random) for name in ENGINES for batch in (1, 4, 16)),
        answers=tuple(Answers.of(name, "abc", logits[name], labels) for name in ENGINES),
        verdicts=tuple(
            compare_accuracy(reference, logits[name], labels, BUDGET, name=name, against="reference", classes=CLASSES)
            for name in ENGINES
            if name != "reference"
        ),
        manifests={name: {"name": name, "precision": p, "classes": CLASSES, "device": "CPU"} for name, (p, _) in ENGINES.items()},
        peaks=Peaks(macs={"fp32": 4e9, "int8": 1.2e10}, bytes=2e10, threads=2, how="stated by the test"),
        work=dict.fromkeys(ENGINES, work),
        layers=(LayerTimes(engine=HOSTILE, batch=1, runs=10, layers=layers, network=network),),
        moments=moments,
        footprints={"fp32": Footprint(file=2_800_000, folder=3_100_000, memory=21_000_000)},
        ranges={HOSTILE: msgspec.to_builtins(ranges(random))},
        failures={"fp8 <img src=x onerror=alert(1)>": "the engine ended after 3 of 200 calls"},
    )


@pytest.fixture(scope="session")
def pictures() -> Callable[[str], Callable[[int], object] | None]:
    """Ways to the pictures of the data set `abc`, as 28 x 28 grey images."""
    from PIL import Image

    def picture(index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(0, 255, (28, 28), dtype=np.uint8))

    return {"abc": picture}.get
