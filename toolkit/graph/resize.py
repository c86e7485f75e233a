"""Resize: a graph that resizes a picture as ONNX's own Resize does, for what an app would get that leaves this to the graph."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx_ir as ir

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.graph.edit import finish, make
from toolkit.onnxfile import serialize
from toolkit.types import Array, Target

MODES = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}
OPSET = 18  # the first whose Resize can filter against aliasing
CUBIC = -0.5  # the cubic's coefficient as Pillow has it; ONNX's default is -0.75


def resize(pixels: Array, width: int, height: int, interpolation: str, antialias: bool) -> Array:
    """uint8 [H, W, C] -> uint8 [height, width, C], by ONNX Runtime: computed in float32, rounded to nearest even."""
    live = _session(interpolation, antialias)
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    sizes = np.array([1, image.shape[1], height, width], np.int64)
    found: Array = live.run(None, {"image": image, "sizes": sizes})[0][0]
    return np.clip(np.rint(found), 0, 255).astype(np.uint8).transpose(1, 2, 0)


@functools.cache
def _session(interpolation: str, antialias: bool) -> Any:
    return onnxruntime.session(serialize(graph(interpolation, antialias)), Target("cpu"), {"threads": 1})


def graph(interpolation: str, antialias: bool) -> ir.Model:
    """`image` float32 [1, C, H, W] and `sizes` int64 [4] -> `resized`."""
    image = ir.Value(name="image", shape=ir.Shape([1, "C", "H", "W"]), type=ir.TensorType(ir.DataType.FLOAT))
    sizes = ir.Value(name="sizes", shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.INT64))
    attributes: dict[str, object] = {"mode": MODES[interpolation], "coordinate_transformation_mode": "half_pixel"}
    if interpolation == "bicubic":
        attributes["cubic_coeff_a"] = CUBIC
    if antialias and interpolation != "nearest":
        attributes["antialias"] = 1
    node = make("Resize", [image, None, None, sizes], "resize", output="resized", **attributes)
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape([1, "C", "height", "width"])
    whole = ir.Graph([image, sizes], node.outputs, nodes=[node], opset_imports={"": OPSET}, name="resize")
    return finish(ir.Model(whole, ir_version=10))
