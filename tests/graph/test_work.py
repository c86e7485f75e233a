"""Work counted on a graph agrees with what PyTorch's modules do."""

from __future__ import annotations

import pytest

from toolkit.graph.export import export
from toolkit.graph.work import work
from toolkit.recipe import Preprocess
from toolkit.reference.resnet import ResNet

# multiply-adds at 224 x 224 and parameters, as torchvision's model cards give them (GFLOPS there are multiply-adds)
PUBLISHED = {"resnet18": (1.814e9, 11_689_512), "resnet50": (4.089e9, 25_557_032)}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_it_agrees_with_the_published_figures(arch):
    macs, parameters = PUBLISHED[arch]
    counted = work(export(ResNet(arch), Preprocess()))
    assert counted.macs == pytest.approx(macs, rel=1e-3)
    # convolutions and the last layer; biases and BatchNorm are under 1 % of the parameters
    assert counted.weight_bytes == pytest.approx(4 * parameters, rel=0.01)
    assert counted.activation_bytes > 4 * 3 * 224 * 224
