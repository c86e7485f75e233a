"""Fit: whether the images, as they are preprocessed, are what the first layer was trained on.

A BatchNormalization keeps the mean and the variance that its input had in training: on such images its output has a mean of beta
and a standard deviation of gamma, channel by channel. With another scale, mean or order of colors it has not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.types import Float, Frozen, Target

# How many times as wide, and how many deviations away, before it is said. The packaged models on their own test images: 0.90
# and 0.95 times, 0.13 and 0.16 deviations; without their mean and std 0.32 and 0.33 times.
WIDE, FAR = 2.5, 2.0


class FirstNorm(Frozen, frozen=True):
    """The tensor behind the first BatchNormalization, and what each channel of it was in training."""

    tensor: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def misfit(graph: ir.Model, norm: FirstNorm | None, images: Float) -> str | None:
    """A warning where the images do not fit, in a line; None where they do, or nothing tells."""
    made = {value.name for node in graph.graph for value in node.outputs}
    if norm is None or norm.tensor not in made:
        return None
    values = _tensor(graph, norm.tensor, images)
    if values.ndim < 2 or values.shape[1] != len(norm.mean):
        return None
    flat = np.moveaxis(values, 1, 0).reshape(len(norm.mean), -1).astype(np.float64)
    deviation, mean = np.asarray(norm.deviation), np.asarray(norm.mean)
    alive = deviation > 1e-3 * deviation.max()
    wide = float(np.median(flat.std(axis=1)[alive] / deviation[alive]))
    far = float(np.median(np.abs(flat.mean(axis=1) - mean)[alive] / deviation[alive]))
    if 1 / WIDE <= wide <= WIDE and far <= FAR:
        return None
    spread = (
        f"spread {wide:.3g} times as wide as in training" if not 1 / WIDE <= wide <= WIDE else f"lie {far:.3g} deviations off"
    )
    what = f"WARNING: the images do not fit the first layer: after '{norm.tensor}' values {spread}"
    return f"{what}. Check mean, std, scale and color in [preprocess]"


def _tensor(graph: ir.Model, name: str, images: Float) -> Any:
    proto: Any = ir.to_proto(graph)
    if name not in {value.name for value in proto.graph.output}:
        proto.graph.output.add().name = name
    live = onnxruntime.session(proto.SerializeToString(), Target("cpu"), {"threads": 1})
    return live.run([name], {graph.graph.inputs[0].name or "": images})[0]
