"""Where the CPU's scheme puts pairs in what is no plain ResNet: mobile networks, concatenations, transformers."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from tests.graph.conftest import Observed
from tests.graph.networks import graph_of, run
from tests.graph.test_qdq import optimized
from toolkit.graph.edges import origin
from toolkit.graph.edit import constant
from toolkit.graph.export import export
from toolkit.graph.qdq import quantize
from toolkit.graph.scheme_cpu import cpu_edges, watched
from toolkit.graph.scheme_tensorrt import tensorrt_edges
from toolkit.recipe import Calibration, Precision, Preprocess

IMAGES = np.random.default_rng(0).normal(size=(16, 1, 28, 28)).astype(np.float32)


def quantized(graph: ir.Model) -> ir.Model:
    ranges = Observed(graph, IMAGES)
    return quantize(graph, ranges, Precision(int8=True), Calibration(method="minmax"))  # type: ignore[arg-type]


def pairs(graph: ir.Model) -> list[str]:
    """What stands before each pair."""
    made = (edge.value.producer() for edge in cpu_edges(graph, ()))
    return [node.op_type if node is not None else "input" for node in made]


def network(*layers: nn.Module) -> ir.Model:
    torch.manual_seed(0)
    return graph_of(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval())


def test_relu6_has_one_pair_behind_it_and_is_fused_away(tmp_path: Path) -> None:
    graph = network(nn.Conv2d(1, 8, 3), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), nn.Conv2d(8, 8, 1))
    assert pairs(graph) == ["input", "Clip", "Clip", "Conv", "GlobalAveragePool", "Flatten"]
    found = optimized(quantized(graph), tmp_path)
    assert found["QLinearConv"] == 3
    assert not {"Clip", "Conv"} & set(found)


@pytest.mark.parametrize("function", [nn.SiLU, nn.Hardswish, nn.GELU])
def test_other_functions_stand_between_two_pairs_and_have_none_inside(function: type[nn.Module], tmp_path: Path) -> None:
    graph = network(nn.Conv2d(1, 8, 3), function(), nn.Conv2d(8, 8, 3), function(), nn.Conv2d(8, 8, 1))
    assert len(pairs(graph)) == 8
    assert pairs(graph).count("Conv") == 3
    assert "Sigmoid" not in pairs(graph)
    assert optimized(quantized(graph), tmp_path)["QLinearConv"] == 3


def scales(graph: ir.Model) -> dict[str, float]:
    """The scale of each pair, by the tensor that it quantizes."""
    found = [node.inputs[:2] for node in graph.graph if node.op_type == "QuantizeLinear"]
    return {value.name: constant(step).item() for value, step in found}  # type: ignore[union-attr,misc]


def test_the_pair_before_hardswish_spans_what_it_lets_through() -> None:
    graph = network(nn.Conv2d(1, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 1))
    bias = next(node for node in graph.graph if node.op_type == "Conv").inputs[2]
    assert bias is not None
    bias.const_value = ir.tensor(np.linspace(-40, 2, 8).astype(np.float32), name=bias.name)
    most = Observed(graph, IMAGES).values["0"].max()
    assert scales(quantized(graph))["0"] == pytest.approx((3 + most) / 255, rel=0.02)  # (42 + most) / 255 for all of it


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        return self.last(x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True))))


def test_a_squeeze_excite_product_is_fused(tmp_path: Path) -> None:
    found = optimized(quantized(network(Gate())), tmp_path)
    assert found["QLinearMul"] == 1
    assert found["QLinearConv"] == 3


@pytest.mark.parametrize("channels", [8, 1])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("counted", [0, 1])
def test_a_pool_that_onnx_runtime_averages_wrongly_stays_in_floating_point(
    counted: int, known: bool, channels: int, tmp_path: Path
) -> None:
    average = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)
    graph = network(nn.Conv2d(1, channels, 3), nn.ReLU(), average, nn.Conv2d(channels, 8, 1))
    pool = next(node for node in graph.graph if node.op_type == "AveragePool")
    pool.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 1)  # torch's exporter cannot say both
    pool.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", counted)
    ready = Observed(graph, IMAGES)
    if not known:
        pool.outputs[0].shape = None
    found = optimized(quantize(graph, ready, Precision(int8=True), Calibration(method="minmax")), tmp_path)  # type: ignore[arg-type]
    assert found["QLinearAveragePool"] == 1 - counted
    assert found["AveragePool"] == counted
    assert found["QLinearConv"] == 2


def test_a_split_keeps_the_scale_of_what_it_parts() -> None:
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.right = nn.Conv2d(1, 8, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = torch.relu(self.conv(x)).chunk(2, dim=1)
            return torch.cat([left, self.right(right)], dim=1)

    found = scales(quantized(network(Shuffle(), nn.Conv2d(8, 8, 1))))
    assert found["split"] == found["split.1"] == found["0.relu"]


def test_a_transformer_keeps_its_residual_stream_in_floating_point(torchvision: ModuleType) -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(28, 7, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)
    model.conv_proj = nn.Conv2d(1, 32, 7, 7)
    nn.init.normal_(model.heads[0].weight, std=0.1)
    graph = export(model.eval(), Preprocess(size=(28, 28), mean=(0.0,), std=(1.0,), color="L"))
    read = {reader.op_type for edge in cpu_edges(graph, ()) for reader in edge.value.consumers()}
    assert not {"Add", "Mul", "Softmax", "LayerNormalization"} & read
    ends = run(quantized(graph), IMAGES), run(graph, IMAGES)
    assert 10 * np.log10((ends[1] ** 2).sum() / ((ends[0] - ends[1]) ** 2).sum()) > 25  # 12 with pairs at its sums


def test_calibration_watches_what_either_scheme_needs() -> None:
    graph = network(Gate(), nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 1))
    seen = set(watched(graph))
    assert {origin(edge.value).name for edge in tensorrt_edges(graph, ())} <= seen
