"""A whole bench on real ONNX Runtime engines, small and short: what is measured, what is saved, and what fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from toolkit.backends.onnxruntime import backend as backend
from toolkit.disk.files import sha256
from toolkit.engine import engine
from toolkit.errors import BackendError
from toolkit.harness.latency import Sampling
from toolkit.harness.results import Results
from toolkit.harness.run import run_bench
from toolkit.images import dataset as images
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Build, Preprocess
from toolkit.runtime.runner import Runner
from toolkit.types import Array, Float, Target, TensorSpec

PLAN = Sampling(seconds=0.5, warmup=0.2, least_blocks=6, most_blocks=12, turn=0.002)
HOW = Preprocess(size=(28, 28), mean=(0.2860,), std=(0.3530,), color="L")


def build(folder: Path, name: str, scale: float) -> None:
    """A linear classifier of 28x28 pictures into 10 classes; `scale` changes its logits but no answer."""
    import onnx_ir as ir

    weights = scale * np.random.default_rng(0).standard_normal((784, 10)).astype(np.float32)
    x = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 1, 28, 28]))
    flat = ir.node("Flatten", [x])
    w = ir.Value(name="w", const_value=ir.tensor(weights), type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([784, 10]))
    product = ir.node("MatMul", [flat.outputs[0], w])
    logits = product.outputs[0]
    logits.name, logits.type, logits.shape = "logits", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", 10])
    graph = ir.Graph([x], [logits], nodes=[flat, product], initializers=[w], opset_imports={"": 18}, name=name)
    folder.mkdir()
    compiled = backend.compile(ir.Model(graph, ir_version=10), Build(threads=1), Target("cpu"), folder)
    Manifest(
        name=name,
        target="cpu",
        file=compiled.file,
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 1, 28, 28)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 10)),),
        profiles=(Profile(min=1, opt=1, max=32),),
        preprocess=HOW,
        hashes={"file": sha256(folder / compiled.file), **compiled.hashes},
        settings=compiled.settings,
    ).write(folder)


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Runner]]:
    folder = tmp_path_factory.mktemp("engines")
    for name, scale in (("reference", 1.0), ("scaled", 1.01)):
        build(folder / name, name, scale)
    live = {name: engine.load(folder / name) for name in ("reference", "scaled")}
    yield live
    for runner in live.values():
        runner.close()


@pytest.fixture(scope="module")
def labeled() -> Any:
    return images.open_data("packaged:fashion-test", HOW, 300)


class Dies:
    """An executor that is lost after so many calls."""

    max_batch = None

    def __init__(self, runner: Runner, calls: int) -> None:
        self.runner, self.calls = runner, calls

    def run(self, batch: Array) -> Float:
        self.calls -= 1
        if self.calls < 0:
            raise BackendError("the device was lost", remedy="Start again")
        return self.runner(batch)

    def close(self) -> None: ...


def test_latency_accuracy_and_the_file(runners: dict[str, Runner], labeled: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    pictures = [labeled.picture(i) for i in range(3)]
    found = run_bench(
        runners,
        batches=(1, 4),
        plan=PLAN,
        images=labeled,
        pictures=pictures,
        reference="reference",
        save=lambda results: results.write(path),
    )
    assert Results.read(path) == found
    assert {m.key for m in found.measurements} == {
        (name, batch, clock, "single-stream")
        for name in ("reference", "scaled")
        for batch, clock in ((1, "with-transfers"), (4, "with-transfers"), (1, "end-to-end"))
    }
    assert all(len(m.seconds) >= 6 and m.warmup_ns and m.blocks[0].yardstick_ns for m in found.measurements)
    [verdict] = found.verdicts
    assert (verdict.engine, verdict.agreement) == ("scaled", 1.0)
    assert [len(a.top1) for a in found.answers] == [300, 300]
    assert found.moments
    assert not found.failures
    assert found.manifests["scaled"]["precision"] == "fp32"


def test_an_engine_that_dies_leaves_the_others_results(runners: dict[str, Runner], labeled: Any) -> None:
    for calls in (3, 12 + 10):  # during accuracy, and during latency
        lost = Runner(runners["scaled"].manifest, Dies(runners["scaled"], calls))
        both = {"reference": runners["reference"], "lost": lost}
        found = run_bench(both, batches=(1,), plan=PLAN, images=labeled, reference="reference")
        assert "the device was lost" in found.failures["lost"]
        assert list(found.broken) == ["lost"]
        [good] = found.of("reference")
        assert good.failure is None
        assert len(good.seconds) >= 6


def test_labels_that_cannot_be_used_leave_the_latency(runners: dict[str, Runner], labeled: Any) -> None:
    class Relabeled:
        count, classes, sha256, batches = labeled.count, None, "x", staticmethod(labeled.batches)
        labels = np.full(labeled.count, 3)

    found = run_bench(runners, batches=(1,), plan=PLAN, images=Relabeled(), reference="reference")
    assert "single label 3" in found.failures["scaled"]
    assert not found.verdicts
    assert len(found.measurements) == 2


def test_offline_searches_batch_and_streams(runners: dict[str, Runner]) -> None:
    found = run_bench({"scaled": runners["scaled"]}, "offline", batches=(1, 8), plan=PLAN, loadgen=False)
    assert [(m.batch, m.streams) for m in found.measurements][:2] == [(1, 1), (8, 1)]
    assert {m.streams for m in found.measurements} == {1, 2, 4}
    assert all(m.throughput for m in found.measurements)


@pytest.mark.parametrize("loadgen", [False, True])
def test_server_offers_rates_until_the_bound(runners: dict[str, Runner], loadgen: bool) -> None:
    if loadgen:
        pytest.importorskip("mlperf_loadgen", reason="needs the extra: mlperf")
    plan = msgspec.structs.replace(PLAN, seconds=0.2)
    found = run_bench({"scaled": runners["scaled"]}, "server", batches=(1, 8), plan=plan, bound=0.2, loadgen=loadgen)
    assert found.measurements
    assert all(m.scenario == "server" and m.offered and m.bound_ns == 2e8 and len(m.seconds) for m in found.measurements)
    assert all(m.settings["max_batch"] in (1, 8) for m in found.measurements)
