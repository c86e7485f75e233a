"""A matrix product over four dimensions, as in the windows of a Swin: its mean input is a vector, and not an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.graph.load.files import helper, node, opened, tensor, write
from toolkit.graph.rounded import round_weights
from toolkit.recipe import Precision


def test_a_product_over_windows_is_rounded_by_its_mean_input(tmp_path: Path) -> None:
    """The shift that rounding gives each output on average, over all positions of all images, is what the bias takes back."""
    random = np.random.default_rng(2)
    weight = random.normal(size=(3, 5)).astype(np.float32)
    start = [
        node("Transpose", ["pixels"], ["last"], perm=[0, 2, 3, 1]),
        node("MatMul", ["last", "wide"], ["mixed"], name="mix"),
        node("MatMul", ["mixed", "back"], ["narrow"], name="back"),
        node("Transpose", ["narrow"], ["image"], perm=[0, 3, 1, 2]),
    ]
    more = [tensor("wide", weight), tensor("back", random.normal(size=(5, 3)))]
    outputs = [helper.make_tensor_value_info("scores", 1, ["N", 4])]
    graph = opened(write(tmp_path / "m.onnx", start=start, more=more, outputs=outputs)).graph
    images = random.normal(1, 1, size=(4, 3, 8, 8)).astype(np.float32)
    found = round_weights(graph, [images], Precision(int8=True))
    assert {"mix", "back"} <= set(found)
    mix = found["mix"]
    moved = (mix.values * mix.step - weight).T @ images.mean((0, 2, 3))
    np.testing.assert_allclose(mix.shift, -moved, rtol=1e-3, atol=1e-6)
