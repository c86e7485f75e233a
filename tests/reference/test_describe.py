"""The stage table, against the paper's figures and against an independent count."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from toolkit.errors import RecipeError
from toolkit.recipe import ARCHITECTURES
from toolkit.reference.describe import describe
from toolkit.reference.resnet import ResNet
from toolkit.report.description import description

# Millions of parameters as torchvision's documentation lists them, 1e9 MACs as the paper's table 1 does (there with V1's stride).
PARAMETERS = {"resnet18": 11.69, "resnet34": 21.80, "resnet50": 25.56, "resnet101": 44.55, "resnet152": 60.19}
PAPER = {"resnet18": 1.8, "resnet34": 3.6, "resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_totals_are_those_of_the_literature(arch: str) -> None:
    assert round(describe(arch).parameters / 1e6, 2) == PARAMETERS[arch]
    assert describe(arch, version="v1").macs / 1e9 == pytest.approx(PAPER[arch], abs=0.1)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@pytest.mark.parametrize("keys", [{}, {"stem": "small", "width": 0.25, "channels": 1, "classes": 10}, {"version": "v1"}])
def test_macs_are_half_the_operations_that_torch_counts(arch: str, keys: dict) -> None:
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter:
        ResNet(arch, **keys)(torch.empty(1, keys.get("channels", 3), 96, 64))
    found = describe(arch, (96, 64), **keys)
    assert found.macs == counter.get_total_flops() // 2
    assert found.parameters == sum(p.numel() for p in ResNet(arch, **keys).parameters())


def test_stages_are_the_papers_rows() -> None:
    found = describe("resnet50")
    assert [(stage.name, stage.output) for stage in found.stages] == [
        ("conv1", (64, 112, 112)),
        ("conv2_x", (256, 56, 56)),
        ("conv3_x", (512, 28, 28)),
        ("conv4_x", (1024, 14, 14)),
        ("conv5_x", (2048, 7, 7)),
        ("fc", (1000,)),
    ]
    assert found.stages[0].blocks == "7x7, 64, stride 2"
    assert found.stages[1].blocks == "3x3 max pool, [1x1, 64; 3x3, 64; 1x1, 256] x 3"
    assert describe("resnet34").stages[3].blocks == "[3x3, 256; 3x3, 256] x 6"


def test_the_table_says_the_totals() -> None:
    stream = io.StringIO()
    found = describe("resnet152", (32, 48), stem="small")
    Console(file=stream, width=120).print(description(found))
    for words in ("resnet152 (v1.5), input 32 x 48", "conv5_x", f"{found.parameters / 1e6:.2f} M", f"{found.macs / 1e9:.2f} G"):
        assert words in stream.getvalue()


def test_unknown_names() -> None:
    with pytest.raises(RecipeError, match=r"'vgg16' is not a ResNet.*resnet18, resnet34"):
        describe("vgg16")
    with pytest.raises(RecipeError, match=r"version 'v2'.*v1 or v1\.5"):
        describe("resnet18", version="v2")
