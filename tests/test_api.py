"""The page of Python for notebooks, on a module of the test's own: built, judged, measured, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toolkit
from toolkit.errors import DataError, EngineError, GraphError, MeasurementError, RecipeError, ToolkitError
from toolkit.graph.run import parse_graph

HOW = {"size": (28, 28), "color": "L", "mean": [0.286], "std": [0.353]}
IMAGES = {
    "calibration": {"data": "packaged:fashion-train", "images": 16},
    "accept": {"data": "packaged:fashion-test", "images": 1000, "max_top1_drop": 50.0, "min_agreement": 0.5},
}


class Net(nn.Module):
    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=4)
        self.fc = nn.Linear(8 * 7 * 7, 10)
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.conv1(x)).flatten(1))
        return logits.softmax(1) if self.softmax else logits


@pytest.fixture(scope="module")
def module() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def engines(module: Net, tmp_path_factory: pytest.TempPathFactory) -> list[toolkit.Engine]:
    out = tmp_path_factory.mktemp("built")
    return toolkit.build(module, precision="fp32,int8", threads=1, out=out, **HOW, **IMAGES)


def test_a_module_becomes_engines_that_answer_as_it_does(module: Net, engines: list[toolkit.Engine]) -> None:
    assert [engine.manifest.precision for engine in engines] == ["fp32", "int8"]
    batch = np.random.default_rng(0).standard_normal((5, 1, 28, 28)).astype(np.float32)
    with engines[0].runner() as runner:
        np.testing.assert_allclose(runner(batch), module(torch.from_numpy(batch)).detach().numpy(), atol=1e-4)
    judgement = toolkit.judge(engines[1])
    assert judgement.accepted and "accepted" in str(judgement)


def test_a_bench_returns_results_and_a_table(engines: list[toolkit.Engine], tmp_path: Path) -> None:
    results = toolkit.bench(engines, seconds=0.5, batches=(1,), save=tmp_path / "results.json")
    assert {"reference", "net-fp32", "net-int8"} <= set(results.engines)
    assert "net-int8" in toolkit.table(results) and (tmp_path / "results.json").is_file()


def test_what_columns_are_is_read_off_a_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    (engine,) = toolkit.build(Net(softmax=True).eval(), out=tmp_path, threads=1, **HOW)
    assert engine.manifest.outputs_are == "probabilities"
    assert any("synthetic" in note for note in engine.manifest.notes)
    (other,) = toolkit.build(Net().eval(), out=tmp_path, threads=1, color="L", size=(28, 28))
    assert any(note.startswith("assumed") for note in other.manifest.notes)


WRONG = {
    "bench option": (lambda e, t: toolkit.bench(e, second=3), ToolkitError, r"bench has no option 'second'.*seconds"),
    "judge option": (lambda e, t: toolkit.judge(e[0], folder="x"), ToolkitError, r"judge has no option 'folder'.*It has .*data"),
    "parity option": (lambda e, t: toolkit.parity(e[0], ways=1), ToolkitError, r"no option 'ways'.*only"),
    "method option": (lambda e, t: e[0].judge(folder="x"), ToolkitError, r"no option 'folder'.*It has data, against, stage"),
    "runner option": (lambda e, t: toolkit.load(e[0].path).classify([], topp=3), ToolkitError, r"no option 'topp'.*top"),
    "no recipe": (lambda e, t: toolkit.Recipe.load(None), RecipeError, "NoneType is not a recipe"),
    "open option": (lambda e, t: toolkit.Engine.open(e[0].path, key=1), ToolkitError, r"no option 'key'.*It has path, trusted"),
    "scenario": (lambda e, t: toolkit.bench(e, "fast"), MeasurementError, "'fast' is not known. There are single-stream"),
    "seconds": (lambda e, t: toolkit.bench(e, seconds="2"), MeasurementError, "'2' is not a time"),
    "no batch": (lambda e, t: toolkit.bench(e, batches=[0]), MeasurementError, "0 is not a batch"),
    "one batch": (lambda e, t: toolkit.bench(e, batches=8), MeasurementError, r"8 is not a batch to measure.*batches=\[1, 8\]"),
    "batch as text": (lambda e, t: toolkit.bench(e, batches="1,8"), MeasurementError, "'1,8' is not a batch"),
    "bound": (lambda e, t: toolkit.bench(e, "server", bound=0), MeasurementError, "0 is no limit"),
    "no engine": (lambda e, t: toolkit.bench([]), MeasurementError, "no engine to measure"),
    "no path": (lambda e, t: toolkit.load(None), EngineError, "NoneType is not an engine"),
    "long name": (lambda e, t: toolkit.load("a" * 5000), EngineError, "File name too long"),
    "against": (lambda e, t: e[0].judge(against=3), EngineError, "int is not an engine"),
    "trusted": (lambda e, t: toolkit.load(e[0].path, trusted=t / "k.pub"), EngineError, r"k\.pub cannot be read"),
    "nothing": (lambda e, t: toolkit.build([]), RecipeError, "nothing to build"),
    "targets": (lambda e, t: toolkit.build(Net().eval(), targets=["cpu", "tpu"], out=t), RecipeError, "'tpu' is not known"),
    "out": (lambda e, t: toolkit.build(Net().eval(), out=t / "file", **HOW), EngineError, "file cannot be made or written"),
    "an engine": (lambda e, t: toolkit.build(e[0].path, out=t), RecipeError, "is an engine, which is built already"),
    "arch": (lambda e, t: toolkit.build(t / "file", arch="resnet99"), RecipeError, "'resnet99' is not known. There are resnet18"),
    "two": (lambda e, t: toolkit.export(Net().eval(), precision="fp32,fp16", **HOW), RecipeError, "several precisions"),
    "limit": (lambda e, t: toolkit.tune(Net().eval(), limit=0, **HOW), RecipeError, "0 is no number of graphs"),
    "no folder": (lambda e, t: toolkit.export(Net().eval(), t / "no" / "m", **HOW), ToolkitError, "cannot write .*/m: No such"),
    "a folder": (lambda e, t: toolkit.bench(e, save=t), ToolkitError, "cannot write .*: Is a directory"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said_before_any_work(engines: list[toolkit.Engine], tmp_path: Path, kind: str) -> None:
    call, error, words = WRONG[kind]
    (tmp_path / "file").write_text("a person's")

    with pytest.raises(error, match=words):
        call(engines, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_engine_to_be_held_against_needs_images(engines: list[toolkit.Engine], tmp_path: Path) -> None:
    """The build's verdict, which is on the reference, would be an answer to another question."""
    (blind,) = toolkit.build(Net().eval(), name="blind", out=tmp_path, threads=1, **HOW)
    with pytest.raises(DataError, match=r"no images to judge it on, and blind is compared with net-fp32\. Name images"):
        blind.judge(against=engines[0])


def test_a_target_said_twice_is_one_engine(tmp_path: Path) -> None:
    (engine,) = toolkit.build(Net().eval(), targets="cpu,cpu", out=tmp_path, threads=1, **HOW)
    assert engine.name == "net-fp32"


def test_an_export_is_a_file(module: Net, tmp_path: Path) -> None:
    path = toolkit.export(module, tmp_path / "m.onnx", **HOW)
    assert "conv1" in {node.name for node in parse_graph(path.read_bytes(), "m").graph}


def test_a_module_that_takes_other_images_or_answers_otherwise_is_refused(module: Net, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"does not take images of \[3, 224, 224\]"):
        toolkit.build(module, out=tmp_path)
    with pytest.raises(GraphError, match=r"answers two images with a tensor of torch.float32 \[2, 1, 28, 28\]"):
        toolkit.build(nn.Identity().eval(), out=tmp_path, **HOW)


def test_a_failure_does_not_end_the_others(module: Net, tmp_path: Path) -> None:
    good = toolkit.Recipe.of(module, name="good", threads=1, **HOW)
    late = toolkit.Recipe.of(nn.Identity().eval(), name="late", threads=1, **HOW)
    early = toolkit.Recipe.of(module, name="early", timing_cache=True, **HOW)
    with pytest.raises(ToolkitError, match=r"2 of 3 engines were not built\. early: .*timing_cache.*late: .*answers two images"):
        toolkit.build([late, early, good], out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_a_recipe_takes_no_options(module: Net) -> None:
    with pytest.raises(RecipeError, match="takes no options, and int8 was given"):
        toolkit.build(toolkit.Recipe.of(module, **HOW), int8=True)
