from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.graph.networks import fashion_graph, graph_of, pictures, run
from toolkit.calibration import collect
from toolkit.graph.edit import constant
from toolkit.graph.qdq import quantize
from toolkit.graph.rounded import round_weights
from toolkit.graph.scheme_cpu import watched
from toolkit.recipe import Calibration, Precision

PLAIN, CORRECTED = Precision(int8=True), Precision(int8=True, bias_correction=True)


def int8(graph, batch):  # type: ignore[no-untyped-def]
    ranges = collect(graph, [batch], watched(graph), threads=1)
    return quantize(graph, ranges, PLAIN, Calibration(method="minmax"), room="half")


def corrected(graph, batch):  # type: ignore[no-untyped-def]
    ranges = collect(graph, [batch], watched(graph), threads=1)
    rounded = round_weights(graph, [batch], CORRECTED, "half")
    return quantize(graph, ranges, CORRECTED, Calibration(method="minmax"), room="half", rounded=rounded)


def test_the_shift_is_what_torch_measures() -> None:
    """One convolution with stride, dilation, groups and uneven padding: the new bias is the old less the mean error."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=(1, 2), groups=2)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), conv, nn.Flatten(), nn.LazyLinear(10)).eval()
    batch = pictures(8, "train")
    with torch.inference_mode():
        model(torch.from_numpy(batch))
    graph = graph_of(model)
    rounded = int8(graph, batch)
    node = next(n for n in rounded.graph if n.name == "1")
    step, quantized = constant(node.inputs[1].producer().inputs[1]), constant(node.inputs[1].producer().inputs[0])
    error = torch.from_numpy(quantized * step[:, None, None, None]).double() - conv.weight.detach().double()
    with torch.inference_mode():
        seen = model[0](torch.from_numpy(batch)).double()
        shift = nn.functional.conv2d(seen, error, None, 2, (2, 1), (1, 2), 2).mean((0, 2, 3))
    made = next(n for n in corrected(graph, batch).graph if n.name == "1")
    np.testing.assert_allclose(constant(made.inputs[2]), (conv.bias.detach().double() - shift).numpy(), rtol=1e-5, atol=1e-6)


def test_it_brings_the_logits_closer() -> None:
    graph, images, batch = fashion_graph("resnet50"), pictures(64, "train"), pictures(1000)
    rounded, shifted = int8(graph, images), corrected(graph, images)
    truth = run(graph, batch)
    errors = [((run(g, batch) - truth) ** 2).mean() for g in (rounded, shifted)]
    assert errors[1] < errors[0]
    assert np.abs(run(shifted, batch).mean(0) - truth.mean(0)).max() < np.abs(run(rounded, batch).mean(0) - truth.mean(0)).max()


def test_a_convolution_without_a_bias_is_given_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Flatten(), nn.LazyLinear(10)).eval()
    batch = pictures(8, "train")
    with torch.inference_mode():
        model(torch.from_numpy(batch))
    graph = graph_of(model)
    truth = run(graph, batch)
    plain, shifted = (np.abs((run(g, batch) - truth).mean(axis=0)).sum() for g in (int8(graph, batch), corrected(graph, batch)))
    assert shifted < plain


def test_a_bias_beside_tiny_weights_does_not_overflow() -> None:
    """ONNX Runtime holds a bias in int32 steps of input scale times weight scale."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
    first.weight.data[1] *= 1e-8
    first.bias.data[1] = 1.0
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)).eval()
    graph, batch = graph_of(model), pictures(32)
    truth, answer = run(graph, batch), run(int8(graph, batch), batch)
    assert np.abs(answer - truth).max() < 0.01 * np.abs(truth).max()
