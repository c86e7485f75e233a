"""Rounded: the INT8 weights of a graph's layers, and what their rounding takes from each bias; measured in one pass of images.

Every layer is judged by its FP32 input, so that nothing here depends on the ranges of activations: the same `Rounded` serve
every candidate of `select`, and every target with the same room for weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.calibration.fingerprint import Fingerprint
from toolkit.errors import CalibrationError
from toolkit.graph.bias import mean_output
from toolkit.graph.channels import IMAGES, LANES, Real, lane_threads, singly
from toolkit.graph.compensate import Covariance, compensate
from toolkit.graph.edit import attribute, constant, output_axis, weight_of
from toolkit.graph.weights import Room, quantize_weight
from toolkit.images.ahead import read_ahead
from toolkit.onnxfile import serialize
from toolkit.recipe import Precision
from toolkit.types import Array, Float, Target

POSITIONS = 4096  # of a layer's inputs, over all images
SEED = 0


class Rounded(NamedTuple):
    """A layer's weight ~ `values` * `step`; `shift` [outputs] is what a bias has to take on for it."""

    values: NDArray[np.int8]
    step: Float
    shift: Real


class Roundings:
    """What `round_weights` found, kept: targets and trials share the work, also where each builds the same graph again."""

    def __init__(self, images: Callable[[bool], Iterable[Array]]) -> None:
        """`images(pixels)`: batches from the calibration set, as uint8 pixels for a graph that takes those, else float32."""
        self._images = images
        self._graph: ir.Model | None = None
        self._print: Fingerprint | None = None  # of that graph
        self._found: dict[tuple[object, ...], dict[str, Rounded]] = {}

    def take(self, graph: ir.Model, typed: ir.Model, precision: Precision, room: Room) -> None:
        """What `typed`, made of `graph` with these settings before, holds, where it can be read there; it is not done again."""
        found = read_rounded(graph, typed) if precision.bias_correction else None
        if found is not None:
            self._found[self._key(graph, precision, room)] = found

    def of(self, graph: ir.Model, precision: Precision, room: Room) -> dict[str, Rounded]:
        """The layers of the FP32 `graph` by name; empty where the recipe rounds to nearest and corrects no bias, or is FP8."""
        if precision.fp8 or (precision.rounding != "compensated" and not precision.bias_correction):
            return {}
        key = self._key(graph, precision, room)
        if key not in self._found:
            nearest = msgspec.structs.replace(precision, rounding="nearest")
            wanted = [precision] if precision.rounding == "nearest" else [precision, nearest]  # one pass of images gives both
            images = self._images(graph.graph.inputs[0].dtype == ir.DataType.UINT8)
            for one, found in zip(wanted, rounded_as(graph, images, wanted, room), strict=True):
                self._found[self._key(graph, one, room)] = found
        return self._found[key]

    def _key(self, graph: ir.Model, precision: Precision, room: Room) -> tuple[object, ...]:
        """A graph counts by what it computes: one that takes pixels is built again for each target and trial."""
        if self._graph is not graph:
            self._graph, self._print = graph, Fingerprint.of(graph)
        return self._print, precision.weights, precision.rounding == "compensated", room


def read_rounded(model: ir.Model, typed: ir.Model) -> dict[str, Rounded] | None:
    """The Rounded of every layer that `quantize` made INT8 in `typed`, out of the FP32 `model`; None where one is not plain.

    A shift is what a bias has moved by; a layer whose bias is elsewhere, as behind Casts to FP16, is not plain.
    """
    layers = {node.name: node for node in model.graph if weight_of(node) is not None}
    found = {}
    for node in typed.graph:
        dequantize = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
        plain = layers.get(node.name)
        if plain is None or dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        values, step = constant(dequantize.inputs[0]), constant(dequantize.inputs[1])
        old, new = _bias(plain), _bias(node)
        if values is None or step is None or step.dtype != np.float32 or (old is not None and new is None):
            return None
        shift = np.zeros(step.size) if new is None else new.astype(np.float64).ravel() - (0 if old is None else old.ravel())
        found[node.name or ""] = Rounded(values, step, shift)
    return found


def _bias(node: ir.Node) -> Array | None:
    """The layer's constant bias, also where a Gemm has given it to an Add."""
    if len(node.inputs) > 2:
        return constant(node.inputs[2])
    readers = list(node.outputs[0].consumers())
    if node.op_type == "Gemm" and len(readers) == 1 and readers[0].name == f"{node.name}.add_bias":
        return constant(readers[0].inputs[1])
    return None


def round_weights(model: ir.Model, images: Iterable[Float], precision: Precision, room: Room = "full") -> dict[str, Rounded]:
    """`rounded_as` one way."""
    return rounded_as(model, images, [precision], room)[0]


def rounded_as(
    model: ir.Model, images: Iterable[Float], ways: Sequence[Precision], room: Room = "full"
) -> list[dict[str, Rounded]]:
    """Layer name -> Rounded, as `weights` and `rounding` of each of `ways` say, out of one pass of images.

    The first 64 images count. Transposed convolutions, and those that pad by themselves (auto_pad), are left out.
    Raises CalibrationError for no images, or where a layer's input is not finite.
    """
    compensated = any(precision.rounding == "compensated" for precision in ways)
    layers = [_Layer(node, compensated) for node in model.graph if _is_linear(node)]
    found: list[dict[str, Rounded]] = [{} for _ in ways]
    if not layers:
        return found
    with threadpool_limits(1, user_api="blas"):  # its threads would wait for each other at every product, and for the lanes
        _measure(model, layers, list(islice(singly(images), IMAGES)))
        every = read_ahead(layers, lambda layer: layer.rounded(ways, room))
        for layer, each in zip(layers, every, strict=True):
            for rounded, one in zip(found, each, strict=True):
                rounded[layer.node.name or ""] = one
    return found


class _Layer:
    """One layer, and what its input was; mutable while images come in."""

    def __init__(self, node: ir.Node, compensated: bool) -> None:
        weight, source = constant(node.inputs[1]), node.inputs[0]
        assert weight is not None and source is not None  # as `_is_linear` has seen
        self.node, self.weight, self.source = node, weight, source.name or ""
        self.axis = output_axis(node) % weight.ndim
        groups = int(attribute(node, "group", 1)) if node.op_type == "Conv" else 1
        taps = int(np.prod(weight.shape[2:]))
        channels = weight.size // weight.shape[self.axis] // taps
        self.covariance = Covariance(groups, channels, taps) if compensated else None
        self.mean: Real = np.zeros(0)
        self.images = 0

    def add(self, values: Array, count: int, random: np.random.Generator) -> None:
        """Take in the layer's input for one image."""
        if not np.isfinite(values).all():
            what = f"tensor '{self.source}' holds a NaN or an infinity for image {self.images}"
            raise CalibrationError(what, remedy="Look at that image, then at the weights of the layer")
        image = values[0] if self.node.op_type == "Conv" else values.reshape(-1, values.shape[-1]).mean(axis=0)
        if self.images == 0:
            self.mean = image.astype(np.float64)
        else:
            self.mean += image
        self.images += 1
        if self.covariance is not None:
            self.covariance.add(_inputs(self.node, self.weight, self.covariance.groups, values, count, random))

    def rounded(self, ways: Sequence[Precision], room: Room) -> list[Rounded]:
        """Its weight in INT8, each way; what was measured for that is given up."""
        nearest = {scale: quantize_weight(self.weight, self.axis, scale, room) for scale in {one.weights for one in ways}}
        found = []
        for precision in ways:
            values, step = nearest[precision.weights]
            if self.covariance is not None and precision.rounding == "compensated":
                values = compensate(self.weight, self.axis, step, self.covariance, room)
            shape = [1] * values.ndim
            shape[self.axis] = -1
            error = values * step.astype(np.float64).reshape(shape) - self.weight
            found.append(Rounded(values, step, -mean_output(self.node, error, self.mean / self.images)))
        self.covariance = None
        return found


def _is_linear(node: ir.Node) -> bool:
    weight = constant(node.inputs[1]) if weight_of(node) is not None else None
    if weight is None:
        return False
    if node.op_type == "Conv":
        return weight.ndim == 4 and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    if node.op_type == "Gemm":
        return not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == 1.0
    return node.op_type == "MatMul" and weight.ndim == 2


def _measure(model: ir.Model, layers: list[_Layer], images: list[Float]) -> None:
    if not images:
        raise CalibrationError("there are no images to round weights by", remedy="Raise `calibration.images`")
    session, entry = _session(model, {layer.source for layer in layers})
    wanted = list(dict.fromkeys(layer.source for layer in layers if layer.source != entry))
    each = -(-POSITIONS // len(images))
    random = np.random.default_rng(SEED)
    run = (lambda image: session.run(wanted, {entry: image})) if wanted else (lambda image: [])
    for image, found in zip(images, read_ahead(images, run, LANES + 1), strict=True):
        seen = dict(zip(wanted, found, strict=True)) | {entry: image}
        for layer in layers:
            layer.add(seen[layer.source], each, random)


def _session(model: ir.Model, names: Iterable[str]) -> tuple[Any, str]:
    model = model.clone()
    values = {value.name: value for node in model.graph for value in node.outputs}
    for value in (values[name] for name in sorted(names) if name in values and not values[name].is_graph_output()):
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    settings = {"threads": lane_threads(), "spin": False}
    return onnxruntime.session(serialize(model), Target("cpu"), settings), model.graph.inputs[0].name or ""


def _inputs(
    node: ir.Node, weight: Array, groups: int, values: Array, count: int, random: np.random.Generator
) -> Float:
    """[at most `count`, groups, K]: what the layer multiplies at some of its positions, in the order of `weights.rows_of`."""
    if node.op_type != "Conv":
        flat = values.reshape(-1, values.shape[-1])
        return np.asarray(flat[_some(len(flat), count, random)][:, None, :])
    top, left, bottom, right = attribute(node, "pads", (0, 0, 0, 0))
    (down, along), (dy, dx) = attribute(node, "strides", (1, 1)), attribute(node, "dilations", (1, 1))
    rows, columns = weight.shape[2:]
    padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
    high = (padded.shape[1] - dy * (rows - 1) - 1) // down + 1
    wide = (padded.shape[2] - dx * (columns - 1) - 1) // along + 1
    y, x = np.divmod(_some(high * wide, count, random), wide)
    taps = [padded[:, y * down + i * dy, x * along + j * dx] for i in range(rows) for j in range(columns)]
    seen = np.stack(taps).reshape(len(taps), groups, -1, len(y))  # [taps, groups, channels, positions]
    return np.ascontiguousarray(seen.transpose(3, 1, 0, 2)).reshape(len(y), groups, -1)


def _some(total: int, count: int, random: np.random.Generator) -> Array:
    return np.arange(total) if total <= count else np.sort(random.choice(total, count, replace=False))
