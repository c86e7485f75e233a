"""Graphs that the tests of this room share: exported once a session."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from toolkit.images.dataset import open_data
from toolkit.recipe import Recipe
from toolkit.reference.source import Source, open_source
from toolkit.types import Array

FASHION = """
name = "fashion"
[reference]
arch = "{arch}"
weights = "packaged:fashion-{arch}"
[preprocess]
size = [28, 28]
mean = [0.2860]
std = [0.3530]
color = "L"
"""


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.parse(FASHION.format(arch="resnet18"))


@pytest.fixture(scope="session")
def source(recipe: Recipe) -> Source:
    return open_source(recipe)


@pytest.fixture(scope="session")
def graph(source: Source) -> ir.Model:
    return source.graph


@pytest.fixture(scope="session")
def batch(recipe: Recipe) -> Array:
    return next(open_data("packaged:fashion-train", recipe.preprocess).batches(64))


class Observed:
    """Ranges by looking: exact extremes of each tensor over a batch, the same for every method."""

    def __init__(self, graph: ir.Model, batch: Array) -> None:
        import onnxruntime

        proto = ir.to_proto(graph)
        names = [value.name for node in graph.graph for value in node.outputs if value.name]
        present = {value.name for value in proto.graph.output}
        for name in names:
            if name not in present:
                proto.graph.output.add().name = name
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        values = session.run(names, {graph.graph.inputs[0].name: batch})
        self.values = dict(zip(names, values, strict=True)) | {graph.graph.inputs[0].name: batch}

    def range(self, tensor: str, method: str, percentile: float = 99.99, *, levels: int = 127) -> tuple[float, float]:
        values = self.values[tensor]
        return min(float(np.min(values)), 0.0), max(float(np.max(values)), 0.0)


@pytest.fixture(scope="session")
def observed(graph: ir.Model, batch: Array) -> Observed:
    return Observed(graph, batch)
