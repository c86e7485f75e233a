"""A zoo in small: torchvision's families through both of torch's exporters, every precision and both kinds of target.

Weights are random, BatchNorm's statistics and the last layer are not (see benchmarks/zoo_make.py): what is proven is that a file
is read, and keeps its answers. benchmarks/zoo.py does the same with the networks at full depth, and with other libraries'.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.zoo.families import NETWORKS
from toolkit import pipeline
from toolkit.graph.run import predicting_runner
from toolkit.harness.answers import snr
from toolkit.recipe import Build, Calibration, Precision, Preprocess, Recipe, Reference
from toolkit.types import Target

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
zoo = pytest.importorskip("zoo", reason="the export extra is not installed")
import zoo_make  # noqa: E402
import zoo_networks  # noqa: E402
import zoo_table  # noqa: E402
from zoo_case import original  # noqa: E402
from zoo_images import crops  # noqa: E402

SIDE, CALIBRATION = 32, 32
CPU, RTX = Target("cpu"), Target("rtx", 89)
ONE = "dynamo, batch 1"  # what torch writes by default
CASES = {  # (writer, family): dB that INT8 for the CPU and for TensorRT reach at least: 3 below what they did
    ("torchscript", "resnext"): (22, 23),
    ("torchscript", "squeezenet"): (26, 27),
    ("torchscript", "efficientnet"): (17, 20),
    ("torchscript", "regnet"): (14, 14),
    ("torchscript", "densenet"): (18, 21),
    ("torchscript", "vit"): (12, 15),
    ("torchscript", "swin"): (21, 21),
    (ONE, "mobilenet_v3"): (15, 15),
    (ONE, "shufflenet"): (16, 16),
    (ONE, "convnext"): (17, 16),
    (ONE, "vit"): (12, 15),
    (ONE, "swin"): (21, 21),
}


class Pictures(NamedTuple):
    """float32 [n, 3, SIDE, SIDE]: to warm and fit with, in a .npy to calibrate on, and to compare on."""

    fit: Any
    labels: Any
    calibration: Path
    compare: Any


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    def read(count: int, seed: int) -> tuple[Any, Any]:
        made = list(crops(count, seed, SIDE))
        pixels = np.stack([np.asarray(picture, np.float32) for picture, _ in made]) / 255
        normal = ((pixels - zoo_make.MEAN) / zoo_make.STD).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(normal), np.array([label for _, label in made])

    fit, labels = read(60, 3)
    path = tmp_path_factory.mktemp("pictures") / "calibration.npy"
    np.save(path, read(CALIBRATION, 1)[0])
    return Pictures(fit, labels, path, read(24, 2)[0])


@pytest.fixture(scope="session")
def model_of(torchvision: ModuleType, pictures: Pictures) -> Callable[[str], Any]:
    """The model of a family, once a session."""
    import torch

    kept: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in kept:
            torch.manual_seed(0)
            model, images = NETWORKS[name](torchvision.models), torch.from_numpy(pictures.fit)
            zoo_make.draw(model)
            zoo_make.warm(model, images)
            zoo_make.fit(model, images, pictures.labels)
            kept[name] = model
        return kept[name]

    return make


SETTLED: dict[str, Any] = {  # else each is searched for
    "equalize": "streams", "weights": "absmax", "rounding": "nearest", "bias_correction": False,
}  # fmt: skip


def trip(path: Path, pictures: Pictures, precision: Precision, like: pipeline.Trip | None = None) -> pipeline.Trip:
    recipe = Recipe(
        name="zoo",
        reference=Reference(onnx=str(path)),
        preprocess=Preprocess(size=(SIDE, SIDE)),
        precision=precision,
        calibration=Calibration(data=str(pictures.calibration), images=CALIBRATION, method="minmax"),
        build=Build(batch=(1, 4, 8)),
    )
    return pipeline.prepare(recipe, proof=False, like=like)


@pytest.mark.parametrize(("writer", "name"), CASES)
def test_a_family_keeps_its_answers(
    name: str,
    writer: str,
    model_of: Callable[[str], Any],
    pictures: Pictures,
    tmp_path: Path,
) -> None:
    """FP32, FP16 and INT8 graphs for the CPU and for TensorRT against the file itself."""
    path = tmp_path / "model.onnx"
    zoo_make.export(model_of(name), pictures.fit, path, writer)
    truth = original(path, pictures.compare)
    plain = trip(path, pictures, Precision())
    on_cpu, on_gpu = CASES[writer, name]
    for precision, target, least in (
        (Precision(), CPU, 90),
        (Precision(compute="fp16"), CPU, 40),
        (Precision(int8=True, **SETTLED), CPU, on_cpu),
        (Precision(int8=True, compute="fp16", **SETTLED), RTX, on_gpu),
    ):
        graph = pipeline.typed(trip(path, pictures, precision, plain), target)
        assert snr(truth, predicting_runner(graph, target, threads=1)(pictures.compare)) > least, (precision, target)


def test_a_plan_for_a_gpu_that_is_not_here(model_of: Callable[[str], Any], pictures: Pictures, tmp_path: Path) -> None:
    """Grouped convolutions, INT8 in FP16: TensorRT-RTX takes the graph, and its engine lies beside it."""
    pytest.importorskip("tensorrt_rtx")
    path = tmp_path / "model.onnx"
    zoo_make.export(model_of("resnext"), pictures.fit, path, "torchscript")
    manifest = pipeline.build(trip(path, pictures, Precision(int8=True, compute="fp16", **SETTLED)), RTX, tmp_path / "engine")
    assert manifest.precision == "int8+fp16"
    assert (tmp_path / "engine" / manifest.file).stat().st_size > 10_000


def test_what_takes_too_long_or_too_much_is_stopped() -> None:
    """In a line that says why; so is what dies by itself."""
    python = [sys.executable, "-c"]
    assert zoo.run([*python, "print('fine')"], 60, 1 << 30) is None
    assert zoo.run([*python, "import time; time.sleep(60)"], 0.5, 1 << 30) == "stopped after 0 s"
    hoard = "import time; hoard = bytes(1) * (1 << 28); time.sleep(60)"
    assert zoo.run([*python, hoard], 60, 1 << 27) == "stopped: it took more than 0.125 GiB"
    assert zoo.run([*python, "raise ValueError('no such thing')"], 60, 1 << 30) == "ValueError: no such thing"
    assert zoo.run([*python, "import os; os.abort()"], 60, 1 << 30) == "died of SIGABRT"


def test_the_table_counts_what_was_built_and_repeats_what_was_said() -> None:
    """One network that was built but for one refusal, one that could not be made."""
    built = {"status": "built", "snr": 50.04, "agreement": 1.0, "bytes": 2_000_000}
    refused = {"status": "refused", "message": "no | such node"}
    builds = dict.fromkeys(zoo_table.BUILDS, built) | {"fp16 rtx": refused}
    plain = zoo_networks.networks()[0]._asdict()
    rows = [
        {**plain, "builds": builds, "top1": 0.5, "onnxruntime int8": {**built, "snr": 20.0}},
        {**plain, "name": "other", "failed": "made", "message": "stopped after 600 s"},
    ]
    text = zoo_table.markdown({"rows": rows, "images": [64, 96]})
    assert "2 networks were tried; 1 could not be made or measured. Commits: no commit (2)." in text
    assert "| RTX FP16 | 0 | 1 | 0 |  |  | 0 |" in text
    assert "| 50% | 50.0 · 100% | 50.0 · 100% | 50.0 · 100% | 20.0 · 100% | 50.0 · 100% · 2.0 MB | refused [1] | " in text
    assert "1. no / such node\n2. stopped after 600 s" in text
