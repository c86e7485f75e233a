"""PyTorch -> graph: the same answers, readable names, any batch; and a departure is found where it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from toolkit.errors import GraphError
from toolkit.graph import export as exporting
from toolkit.graph.edit import initializer
from toolkit.graph.export import export
from toolkit.graph.run import graph_runner
from toolkit.images.dataset import open_data
from toolkit.onnxfile import serialize
from toolkit.recipe import Preprocess, Recipe
from toolkit.reference.check import BATCHES, agreement, check, first_departure
from toolkit.reference.source import Source
from toolkit.types import Array


@pytest.fixture(autouse=True, scope="module")
def each_time(exports_once: Callable[[Any, Any], Any]) -> Iterator[None]:
    """What these tests export is exported by torch, and not what the run has kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_quietly_export", exports_once)
        yield


def test_it_answers_as_the_reference_at_every_batch(source: Source, recipe: Recipe) -> None:
    found = check(source, open_data("packaged:fashion-test", recipe.preprocess))
    assert found.images == sum(BATCHES)
    assert found.max_abs < 1e-4
    assert found.cosine > 1 - 1e-6
    assert found.top1 == 1.0


def test_names_are_the_modules(graph: ir.Model) -> None:
    names = [node.name for node in graph.graph]
    assert {"conv1", "layer1.0.conv1", "layer2.0.downsample.0", "layer4.1.add", "avgpool", "fc"} <= set(names)
    assert len(set(names)) == len(names)
    assert {"layer1.0.conv1.weight", "layer1.0.conv1.bias", "fc.weight"} <= set(graph.graph.initializers)


def test_the_batch_is_N_and_batchnorm_is_gone(graph: ir.Model) -> None:
    assert str(graph.graph.inputs[0].shape) == "[N,1,28,28]"
    assert str(graph.graph.outputs[0].shape) == "[N,10]"
    assert {node.op_type for node in graph.graph} == {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


def test_the_same_model_gives_the_same_bytes_without_paths(source: Source, recipe: Recipe, graph: ir.Model) -> None:
    from toolkit.reference.source import torch_module

    module = torch_module(source)
    assert module is not None
    data = serialize(export(module, recipe.preprocess))
    assert data == serialize(graph)
    assert b"resnet.py" not in data


def test_a_damaged_layer_is_named(source: Source, recipe: Recipe, batch: Array) -> None:
    graph = source.graph.clone()
    node = next(node for node in graph.graph if node.name == "layer3.0.conv2")
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    node.replace_input_with(1, initializer(graph.graph, "damaged", weight.const_value.numpy() * np.float32(1.01)))
    broken = Source(source.reference, graph)
    assert first_departure(broken, batch[:1]) == "layer3.0.conv2"
    with pytest.raises(GraphError, match=r"the first tensor that does is 'layer3\.0\.conv2'"):
        check(broken, open_data("packaged:fashion-test", recipe.preprocess))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.mean((2, 3))
        if flat.sum() > 0:
            flat = -flat
        return self.fc(flat)  # type: ignore[no-any-return]


def test_a_model_that_torch_cannot_trace_is_refused_with_its_own_line(capfd: pytest.CaptureFixture[str]) -> None:
    """In whole sentences and without colors; and torch prints no graphs beside it."""
    with pytest.raises(GraphError) as caught:
        export(Branching().eval(), Preprocess(size=(8, 8)))
    said = str(caught.value)
    assert "cannot export the module Branching: Could not guard on data-dependent expression" in said
    assert "test_export.py, line" in said and "in forward)" in said and said.endswith("torch.where")
    assert "\x1b" not in said and "\n" not in said
    assert "def forward" not in "".join(capfd.readouterr())


OUTSIDE = nn.Linear(3, 2)


class Reaching(nn.Module):
    """Its one layer is a global: no module of its own has a name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return OUTSIDE(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_module_whose_layers_are_outside_of_it_exports() -> None:
    graph = export(Reaching().eval(), Preprocess(size=(8, 8)))
    batch = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(graph_runner(graph, 1)(batch.numpy()), Reaching()(batch).numpy(), rtol=1e-5, atol=1e-6)


def test_other_architectures_export_too() -> None:
    """A max-pool stem and bottlenecks, at a size that takes seconds."""
    from toolkit.reference.resnet import ResNet

    torch.manual_seed(0)
    model = ResNet("resnet50", classes=7, width=0.125).eval()
    how = Preprocess(size=(64, 64))
    images = torch.randn(3, 3, 64, 64)
    answers = graph_runner(export(model, how))(images.numpy())
    with torch.inference_mode():
        assert agreement(model(images).numpy(), answers).max_abs < 1e-4
