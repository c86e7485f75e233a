from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.graph.networks import fashion_graph, graph_of, pictures, run
from toolkit.calibration import collect
from toolkit.errors import CalibrationError
from toolkit.graph.edit import constant
from toolkit.graph.equalize import channel_sets, equalize
from toolkit.graph.qdq import quantize
from toolkit.graph.scheme_cpu import watched
from toolkit.onnxfile import serialize
from toolkit.recipe import Calibration, Precision
from toolkit.types import Float


def int8(graph, batch: Float):  # type: ignore[no-untyped-def]
    ranges = collect(graph, [batch], watched(graph), threads=1)
    return quantize(graph, ranges, Precision(int8=True), Calibration(method="minmax"))


class Mixed(nn.Module):
    """Depthwise and grouped convolutions, pooling, LeakyReLU, a branch that a sigmoid reads, a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, 1, 1, groups=2)
        self.gated = nn.Conv2d(12, 12, 1)
        self.last = nn.Conv2d(12, 6, 3)
        self.hidden = nn.Linear(6 * 6 * 6, 20)
        self.fc = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = nn.functional.leaky_relu(self.depthwise(x), 0.1)
        x = nn.functional.max_pool2d(torch.relu(self.grouped(x)), 2)
        gate = self.gated(x)
        x = nn.functional.avg_pool2d(torch.relu(self.last(nn.functional.pad(gate * torch.sigmoid(gate), (1, 1, 1, 1)))), 2, 1)
        return self.fc(torch.relu(self.hidden(torch.flatten(x, 1))))


def test_the_sets_of_a_resnet() -> None:
    graph = fashion_graph("resnet50")
    sets = channel_sets(graph)
    assert sum(not s.stream for s in sets) == 2 * 16 + 1  # within blocks, and between the stem and the first projection
    assert [(len(s.writers), len(s.readers)) for s in sets if s.stream] == [(4, 4), (5, 5), (7, 7), (4, 3)]
    # every convolution and the classifier reads and writes once, but for the image and the logits
    readers = [node.name for s in sets for node in s.readers]
    assert sorted(readers) == sorted(n.name for n in graph.graph if n.op_type in ("Conv", "Gemm") and n.name != "conv1")


def test_what_is_not_homogeneous_ends_a_set() -> None:
    torch.manual_seed(0)
    sets = channel_sets(graph_of(Mixed()))
    assert [[n.name for n in s.writers] for s in sets] == [["stem"], ["depthwise"], ["grouped"], ["last"], ["hidden"]]
    assert all("sigmoid" not in name and "gated" not in name for s in sets for name in s.tensors)


def test_the_function_stays_on_any_topology() -> None:
    torch.manual_seed(0)
    graph = graph_of(Mixed())
    batch = pictures(16)
    before, after = run(graph, batch), run(equalize(graph, "streams", [batch]), batch)
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()


@pytest.mark.parametrize("recipe", [None, "all"])
@pytest.mark.parametrize("mode", ["pairs", "streams"])
def test_the_function_of_a_resnet_stays(mode: str, recipe: str | None) -> None:
    graph, batch = fashion_graph("resnet50", recipe), pictures(16)
    bytes_before = serialize(graph)
    before, after = run(graph, batch), run(equalize(graph, mode, [pictures(16, "train")]), batch)  # type: ignore[arg-type]
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    assert serialize(graph) == bytes_before


def test_the_scales_that_channels_came_with_do_not_show() -> None:
    images = [pictures(16, "train")]
    for recipe in ("pairs", "streams", "outliers"):
        clean, ruined = (equalize(fashion_graph("resnet18", r), "streams", images) for r in (None, recipe))
        for one, other in zip(clean.graph, ruined.graph, strict=True):
            if one.op_type == "Conv":
                a, b = constant(one.inputs[1]), constant(other.inputs[1])
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


def test_batches_do_not_show() -> None:
    graph, images = fashion_graph("resnet18"), pictures(12, "train")
    one = equalize(graph, "streams", [images])
    other = equalize(graph, "streams", [images[:5], images[5:]])
    assert serialize(one) == serialize(other)


@pytest.mark.parametrize(
    ("arch", "recipe"), [*(("resnet18", r) for r in ("pairs", "streams", "outliers", "dead", "constant")), ("resnet50", "all")]
)
def test_naive_int8_falls_and_equalized_int8_does_not(arch: str, recipe: str) -> None:
    graph = fashion_graph(arch, recipe)
    images, batch = pictures(64, "train"), pictures(1000)
    truth = run(graph, batch).argmax(1)
    naive = (run(int8(graph, images), batch).argmax(1) == truth).mean()
    kept = (run(int8(equalize(graph, "streams", [images]), images), batch).argmax(1) == truth).mean()
    assert naive < 0.7, "the weights are not hostile"
    assert kept >= 0.985


def test_pairs_alone_cannot_mend_streams() -> None:
    graph = fashion_graph("resnet18", "streams")
    images, batch = pictures(64, "train"), pictures(500)
    truth = run(graph, batch).argmax(1)
    assert (run(int8(equalize(graph, "pairs", [images]), images), batch).argmax(1) == truth).mean() < 0.7


def test_without_images_noise_will_do() -> None:
    graph = fashion_graph("resnet18", "streams")
    images, batch = pictures(64, "train"), pictures(500)
    truth = run(graph, batch).argmax(1)
    assert (run(int8(equalize(graph, "streams"), images), batch).argmax(1) == truth).mean() >= 0.98


def test_bad_images() -> None:
    graph, images = fashion_graph("resnet18"), pictures(3)
    with pytest.raises(CalibrationError, match="no images"):
        equalize(graph, "streams", [])
    images[2, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match=r"tensor '.+' holds a NaN or an infinity for image 2"):
        equalize(graph, "streams", [images])
