"""Products around activation functions give each channel a scale of its own, and leave the FP32 function as it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from tests.graph.conftest import Observed
from tests.graph.networks import graph_of, run
from toolkit.graph.prescale import equalized, has_functions, prescale
from toolkit.graph.qdq import quantize
from toolkit.onnxfile import serialize
from toolkit.recipe import Calibration, Precision
from toolkit.types import Float

IMAGES = np.random.default_rng(0).normal(size=(16, 1, 28, 28)).astype(np.float32)


def spread(function: nn.Module) -> ir.Model:
    """Channels of very different size, which the depthwise layer behind makes alike."""
    torch.manual_seed(0)
    first, depthwise = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
    scale = torch.logspace(-1.5, 0.5, 8).reshape(-1, 1, 1, 1)
    with torch.no_grad():
        first.weight *= 8 * scale
        depthwise.weight /= scale
    layers = [first, function, depthwise, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return graph_of(nn.Sequential(*layers).eval())


def snr(truth: Float, answer: Float) -> float:
    truth, answer = truth - truth.mean(0), answer - truth.mean(0)
    return float(10 * np.log10((truth**2).sum() / ((truth - answer) ** 2).sum()))


def int8(graph: ir.Model) -> ir.Model:
    return quantize(graph, Observed(graph, IMAGES), Precision(int8=True), Calibration(method="minmax"))  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [nn.Hardswish(), nn.SiLU(), nn.GELU()], ids=lambda f: type(f).__name__)
def test_channels_of_every_size_keep_their_bits(function: nn.Module) -> None:
    graph = spread(function)
    truth = run(graph, IMAGES)
    plain, mended = (equalized(graph, mode, [IMAGES]) for mode in ("streams", "activations"))  # type: ignore[arg-type]
    np.testing.assert_allclose(run(mended, IMAGES), truth, atol=1e-4)
    before, after = (snr(truth, run(int8(one), IMAGES)) for one in (plain, mended))
    assert after > before + 6


def test_what_lets_scales_through_is_not_scaled_twice() -> None:
    """A LeakyRelu's channels are alike once the graph is equalized: its products go by that, not by what they were before."""
    graph = spread(nn.LeakyReLU(0.1))
    mended = equalized(graph, "activations", [IMAGES])
    np.testing.assert_allclose(run(mended, IMAGES), run(graph, IMAGES), atol=1e-4)
    afterwards = prescale(equalized(graph, "streams", [IMAGES]), [IMAGES])
    assert serialize(mended) == serialize(afterwards)


def test_where_no_such_function_stands_there_is_nothing_to_do() -> None:
    assert not has_functions(spread(nn.ReLU()))
    assert not has_functions(spread(nn.Sigmoid()))
