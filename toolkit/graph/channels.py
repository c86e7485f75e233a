"""What each channel of a tensor carries, measured on a few images: the evidence for equalization and bias correction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.cpu import cores
from toolkit.errors import CalibrationError, GraphError
from toolkit.graph.edit import initializer, make
from toolkit.images.ahead import read_ahead
from toolkit.onnxfile import serialize
from toolkit.types import Array, Float, Target

Real = NDArray[np.float64]
SETTINGS = {"threads": 0, "spin": False}
IMAGES = 64  # more do not change what comes of it
LANES = 2  # images at a time, each on its share of the cores: threads that share one image wait for each other at every layer


class Channels(NamedTuple):
    """Of one tensor [N, C, H, W] or [N, C], over the images and positions."""

    peak: Real  # [C]: the largest |x|
    power: Real  # [C]: the mean of x^2
    mean: Real  # [C]


def measure(model: ir.Model, images: Iterable[Float], tensors: Sequence[str]) -> dict[str, Channels]:
    """Run the first 64 images of float32 batches through the graph; only sums leave it, so memory does not grow.

    Raises GraphError for a tensor that the graph lacks, CalibrationError for no images, and for NaN or Inf (it names the tensor).
    """
    if not tensors:
        return {}
    live = onnxruntime.session(serialize(_with_sums(model, tensors)), Target("cpu"), {"threads": lane_threads(), "spin": False})
    name = live.get_inputs()[0].name
    outputs = [f"{tensor}.{kind}" for tensor in tensors for kind in Channels._fields]
    totals: list[Channels | None] = [None] * len(tensors)
    count = 0
    for found in read_ahead(islice(singly(images), IMAGES), lambda image: live.run(outputs, {name: image}), LANES + 1):
        answers = [np.asarray(answer, np.float64) for answer in found]
        for index, tensor in enumerate(tensors):
            new, old = Channels(*answers[3 * index : 3 * index + 3]), totals[index]
            # the means too: ONNX Runtime's ReduceMax passes over a NaN unless it stands first
            if not np.isfinite(new.peak).all() or np.isnan(new.mean).any():
                what = f"tensor '{tensor}' holds a NaN or an infinity for image {count}"
                raise CalibrationError(what, remedy="Look at that image, then at the weights of the layer")
            if old is not None:
                new = Channels(np.maximum(old.peak, new.peak), old.power + new.power, old.mean + new.mean)
            totals[index] = new
        count += 1
    if count == 0:
        raise CalibrationError("there are no images to measure the channels with", remedy="Raise `calibration.images`")
    return {t: Channels(c.peak, c.power / count, c.mean / count) for t, c in zip(tensors, totals, strict=True) if c is not None}


def lane_threads() -> int:
    """The threads of one of LANES sessions or images that run at a time."""
    return max(1, cores() // LANES)


def singly(images: Iterable[Float]) -> Iterator[Float]:
    """Each image as a batch of one: how the images came in batches must not show in what is measured."""
    return (batch[i : i + 1] for batch in images for i in range(len(batch)))


def noise(model: ir.Model, count: int = 16, seed: int = 0) -> list[Array]:
    """Where there are no images: batches of 4 of unit white noise, or of any pixels, in the shape of the graph's input."""
    source = model.graph.inputs[0]
    shape = [d if isinstance(d, int) else 0 for d in (source.shape or [])][1:]
    if not shape or 0 in shape:
        raise GraphError(f"the input '{source.name}' has no fixed image size", remedy="Give images")
    random = np.random.default_rng(seed)
    if source.dtype == ir.DataType.UINT8:
        return [random.integers(0, 256, (4, *shape), np.uint8) for _ in range(count // 4)]
    return [random.standard_normal((4, *shape), np.float32) for _ in range(count // 4)]


def _with_sums(model: ir.Model, tensors: Sequence[str]) -> ir.Model:
    """The graph with three small outputs a tensor, called after it and the fields of Channels."""
    model = model.clone()
    values = {value.name: value for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs))}
    for name in tensors:
        value = values.get(name)
        if value is None or value.shape is None or len(value.shape) not in (2, 4):
            raise GraphError(f"the graph has no tensor '{name}' of rank 2 or 4")
        axes = [0, 2, 3] if len(value.shape) == 4 else [0]
        positions = initializer(model.graph, f"{name}.axes", np.array(axes, np.int64))
        size = make("Abs", [value], f"{name}.size")
        square = make("Mul", [value, value], f"{name}.square")
        peak = make("ReduceMax", [size.outputs[0], positions], f"{name}.peak", keepdims=0)
        power = make("ReduceMean", [square.outputs[0], positions], f"{name}.power", keepdims=0)
        mean = make("ReduceMean", [value, positions], f"{name}.mean", keepdims=0)
        model.graph.extend([size, square, peak, power, mean])
        for node in (peak, power, mean):
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            model.graph.outputs.append(node.outputs[0])
    return model
