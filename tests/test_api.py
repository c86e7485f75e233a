"""The page of Python for notebooks, on a module of the test's own: built, judged, measured, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toolkit
from toolkit.errors import GraphError, MeasurementError, RecipeError, ToolkitError
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
    with pytest.raises(MeasurementError, match=r"no option 'second'.*seconds"):
        toolkit.bench(engines, second=3)


def test_what_columns_are_is_read_off_a_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    (engine,) = toolkit.build(Net(softmax=True).eval(), out=tmp_path, threads=1, **HOW)
    assert engine.manifest.outputs_are == "probabilities"
    assert any("synthetic" in note for note in engine.manifest.notes)
    (other,) = toolkit.build(Net().eval(), out=tmp_path, threads=1, color="L", size=(28, 28))
    assert any(note.startswith("assumed") for note in other.manifest.notes)


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
