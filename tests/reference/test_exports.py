"""Exports are made once: kept by the network, its weights, its input and what made them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from toolkit.disk.files import cache_folder
from toolkit.onnxfile import serialize
from toolkit.recipe import Preprocess
from toolkit.reference import exports

HOW = Preprocess(size=(8, 8), color="L", mean=(0.5,), std=(0.25,))


def network(stride: int) -> nn.Module:
    """Of one set of weights, whatever the stride."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=stride), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def test_the_second_export_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first = serialize(exports.exported(network(1), HOW))
    (kept,) = (path for path in (cache_folder() / "exports").iterdir() if first in path.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(exports, "export", None)  # not called again
        assert serialize(exports.exported(network(1), HOW)) == first
    assert serialize(exports.exported(network(2), HOW)) != first
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert serialize(exports.exported(network(1), HOW)) == first
