"""Activation functions are found as one step, whatever they are exported as, and what they cut is known."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from tests.graph.networks import graph_of
from toolkit.graph.activations import Activation, units


class HardSwishInParts(nn.Module):
    """As PaddlePaddle exports it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.clamp(x + 3, 0, 6) / 6


def behind_conv(function: nn.Module) -> tuple[ir.Model, list[Activation]]:
    torch.manual_seed(0)
    graph = graph_of(nn.Sequential(nn.Conv2d(1, 4, 3), function, nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return graph, list(units(graph).values())


@pytest.mark.parametrize(
    ("function", "nodes"),
    [
        (nn.ReLU6(), 1),
        (nn.SiLU(), 2),
        (nn.GELU(), 5),
        (nn.Hardswish(), 1),
        (HardSwishInParts(), 4),
        (nn.LeakyReLU(0.2), 1),
        (nn.Mish(), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_function_is_one_unit(function: nn.Module, nodes: int) -> None:
    _, found = behind_conv(function)
    assert [len(unit.nodes) for unit in found] == [nodes]
    x = np.linspace(-8, 8, 101)
    np.testing.assert_allclose(found[0](x), function(torch.from_numpy(x)).numpy(), atol=2e-3)


def test_what_is_read_elsewhere_is_no_unit() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return (torch.relu(x) + self.other(x)).mean((2, 3))

    assert not units(graph_of(Twice()))


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [(nn.Hardswish(), -3.0, 20.0), (nn.Hardsigmoid(), -3.0, 3.0), (nn.ReLU(), 0.0, 20.0), (nn.LeakyReLU(0.2), -30.0, 20.0)],
    ids=lambda value: type(value).__name__,
)
def test_what_a_function_cuts_need_not_be_kept(function: nn.Module, low: float, high: float) -> None:
    unit = behind_conv(function)[1][0]
    least, most = unit.active(-30.0, 20.0)
    assert least == pytest.approx(low, abs=0.3)
    assert most == pytest.approx(high, abs=0.3)


def test_beyond_the_active_part_nothing_moves_by_half_a_step() -> None:
    unit = behind_conv(nn.SiLU())[1][0]
    least, most = unit.active(-30.0, 20.0)
    assert -8 < least < -4
    assert most == pytest.approx(20.0, abs=0.05)
    half = (20.0 + 0.3) / 255 / 2
    x = np.linspace(-30, least, 500)
    assert np.abs(unit(x) - unit(np.array([least]))).max() <= half * 1.01
