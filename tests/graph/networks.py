"""Small networks and pictures that several tests of graph passes share."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
from torch import nn

from research.hostile import ruin
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.graph.export import export
from toolkit.images.dataset import PACKAGED, open_data
from toolkit.onnxfile import serialize
from toolkit.recipe import Preprocess
from toolkit.reference.resnet import ResNet
from toolkit.reference.weights import read_weights
from toolkit.types import Float, Target

FASHION = Preprocess(size=(28, 28), mean=(0.286,), std=(0.353,), color="L")


def fashion(name: str, recipe: str | None = None, *, decades: float = 3.2, seed: int = 0) -> ResNet:
    """A packaged model, ruined by a hostile recipe where one is named."""
    weights = read_weights(PACKAGED / f"fashion-{name}.safetensors")
    state = ruin(weights.tensors, recipe, decades=decades, seed=seed) if recipe else weights.tensors
    model = ResNet(name, classes=10, channels=1, width=len(state["bn1.bias"]) / 64, stem="small")
    model.load_state_dict(state)
    return model.eval()


def graph_of(model: nn.Module) -> ir.Model:
    return export(model, FASHION)


def fashion_graph(name: str, recipe: str | None = None) -> ir.Model:
    """The graph of a packaged model, exported once a session; each test has a copy, which it may change."""
    return _exported(name, recipe).clone()


@functools.cache
def _exported(name: str, recipe: str | None) -> ir.Model:
    return graph_of(fashion(name, recipe, seed=21))


def pictures(count: int, split: str = "test") -> Float:
    return np.concatenate(list(open_data(f"packaged:fashion-{split}", FASHION, count).batches(500)))


def run(graph: ir.Model, batch: Float) -> Float:
    live = onnxruntime.session(serialize(graph), Target("cpu"), {"threads": 1})
    name = live.get_inputs()[0].name
    return np.concatenate([live.run(None, {name: batch[i : i + 250]})[0] for i in range(0, len(batch), 250)])
