"""Normal: whether a file normalizes its input itself, and which pixels it expects. Read off the file, before any recipe.

1. From the image on, subtractions, divisions, sums, products, a 1x1 convolution of each channel alone and a BatchNormalization by
   constants are followed, as y = a x + b in each channel, through casts, limits, changes of layout and a Resize, up to the first
   other operator. Channels that are cut apart, by Split, Slice or Gather, are followed one by one, up to the Concat that joins
   them.
2. A mean, -b / a, in the middle of 0 to 255, or of 0 to 1, is that of pixels in that range; a plain division by 255 or 127.5 is
   one of pixels of 0 to 255. BatchNormalization says the same by the mean and the deviation that it keeps.
3. Means that are ImageNet's tell the order of colors in which the file takes its channels.
4. Anything else says nothing: such as torchvision's Inception, which takes its input from ImageNet's normalization to another.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from toolkit.graph.edit import attribute, constant

Values = np.ndarray[Any, np.dtype[np.float64]]
MIDDLE = (0.25, 0.65)  # of the range, where means of photographs lie: ImageNet's are 0.406 to 0.485, and 0.5 is common
SPREAD = (0.08, 0.4)  # of the range, their deviations: ImageNet's are 0.224 to 0.229
RANGES = (255.0, 1.0)
WHOLE = (1 / 255, 1 / 256, 1 / 127.5, 1 / 128)  # plain factors of pixels
MOST = 4096  # values of a constant
STEPS = 24
IMAGENET = (0.485, 0.456, 0.406)  # red, green, blue; Caffe's 123.68, 116.779 and 103.939 are the same of 255
CLOSE = 0.02
_THROUGH = ("Cast", "Identity", "Transpose", "Dropout", "Squeeze", "Unsqueeze", "Resize", "Upsample", "Clip")
_TURNS = ("Gather", "GatherND", "Slice")  # of three channels: RGB to BGR
_SHAPES = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten")


class Normal(NamedTuple):
    """`scale` is what pixels of 0 to 255 are to be multiplied by, with a mean of 0 and a deviation of 1; `nodes` do the rest."""

    scale: float
    nodes: tuple[str, ...]
    color: Literal["RGB", "BGR"] | None = None  # where its means tell
    who: str = "file"  # or module

    @property
    def text(self) -> str:
        if not self.nodes:
            return f"the {self.who} is Ultralytics', whose classifiers are trained on pixels that nothing normalizes"
        return f"the {self.who} normalizes its input itself ({', '.join(self.nodes)})"


def normalization_of(path: Path, name: str | None = None) -> Normal | None:
    """Of its image, or its input `name`. None where it does not normalize, or cannot be read; whoever loads it says why."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        model = ir.from_proto(onnx.load(str(path), load_external_data=False))
        plain = model.metadata_props.get("author") == "Ultralytics" and model.metadata_props.get("task") == "classify"
        return normalization(model.graph, name) or (Normal(1 / 255, (), "RGB") if plain else None)
    except Exception:  # whatever a library raises over a foreign file; it is refused in its own words where it is loaded
        return None


def normalization(graph: ir.Graph, name: str | None = None) -> Normal | None:
    """As `normalization_of`, of a graph whose operators are as they came."""
    images = [value for value in graph.inputs if not value.is_initializer()]
    named = [value for value in images if value.name == name] if name else images
    pictures = [value for value in named if value.shape is not None and len(value.shape) == 4]
    pictures = [value for value in pictures if list(value.shape or ())[1:].count(1) < 2]  # constants a channel are no picture
    value = named[0] if len(named) == 1 else pictures[0] if len(pictures) == 1 else None
    if value is None:
        return None
    last = value.shape is not None and len(value.shape) == 4 and value.shape[3] in (1, 3) and value.shape[1] not in (1, 3)
    found, end, _ = _followed(_Followed(Affine(np.ones(1), np.zeros(1), ()), value, 3 if last else 1))
    readers = _readers(end)
    if len(readers) == 1 and readers[0].op_type == "BatchNormalization" and not readers[0].domain:
        mean, variance = (_small(part) for part in readers[0].inputs[3:5])
        if mean is None or variance is None:
            return None
        return by_statistics(mean, variance + float(attribute(readers[0], "epsilon", 1e-5)), found, _called(readers[0]))
    return by_mean(found)


class Affine(NamedTuple):
    """y = a x + b in each channel, as `nodes` made it; channel i of y is channel `order[i]` of the image."""

    a: Values
    b: Values
    nodes: tuple[str, ...]
    order: tuple[int, ...] = (0, 1, 2)

    def turned(self, order: tuple[int, ...]) -> Affine:
        """With its channels in another order."""
        a, b = (part[list(order)] if len(part) == len(order) else part for part in (self.a, self.b))
        return Affine(a, b, self.nodes, tuple(self.order[i] for i in order) if len(self.order) == len(order) else self.order)

    def then(self, a: Values, b: Values, node: str) -> Affine:
        return Affine(self.a * a, self.b * a + b, (*self.nodes, node), self.order)


class _Followed(NamedTuple):
    so_far: Affine
    end: ir.Value
    axis: int  # of its channels


def _followed(found: _Followed) -> _Followed:
    """Rule 1."""
    for _ in range(STEPS):
        readers = _readers(found.end)
        joined = _joined(found, readers)
        if joined is not None:
            found = joined
            continue
        if len(readers) != 1 or readers[0].domain not in ("", "ai.onnx"):
            break
        node, so_far = readers[0], found.so_far
        if node.op_type in _THROUGH and node.inputs[0] is found.end:
            perm = attribute(node, "perm", None) if node.op_type == "Transpose" else None
            found = found._replace(end=node.outputs[0], axis=list(perm).index(found.axis) if perm else found.axis)
        elif _turns(node, found.end):
            of_colors = found.axis in {axis % 4 for axis in _axes(node)}  # else the picture is mirrored
            found = _Followed(so_far.turned((2, 1, 0)) if of_colors else so_far, node.outputs[0], found.axis)
        elif (mixed := _by_convolution(node, found.end)) is not None:
            found = _Followed(so_far.turned(mixed[2]).then(mixed[0], mixed[1], _called(node)), node.outputs[0], found.axis)
        elif (step := _step(node, found.end)) is not None and _fits(step, so_far.a):
            found = _Followed(so_far.then(*step, _called(node)), node.outputs[0], found.axis)
        else:
            break
    return found


def _joined(before: _Followed, readers: list[ir.Node]) -> _Followed | None:
    """What becomes of channels that are cut apart until they are joined again; None where `readers` do not cut them apart."""
    value = before.end
    if not readers or any(node.op_type not in (*_TURNS, "Split") or node.inputs[0] is not value for node in readers):
        return None
    cut = [output for node in readers for output in node.outputs]
    starts = [_Followed(Affine(np.ones(1), np.zeros(1), (), (_channel(output),)), output, before.axis) for output in cut]
    parts = {part.end: part.so_far for part in map(_followed, starts)}
    joins = {node for end in parts for node in _readers(end)}
    join = joins.pop() if len(joins) == 1 else None
    if join is None or join.op_type != "Concat" or len(parts) < 3 or set(join.inputs) != set(parts):
        return None
    ordered = [parts[end] for end in join.inputs if end is not None]
    if any(len(part.a) > 1 or len(part.b) > 1 for part in ordered):
        return None
    places = tuple(part.order[0] for part in ordered)
    so_far = before.so_far.turned(places) if sorted(places) == list(range(3)) else before.so_far._replace(order=())
    a, b = np.concatenate([part.a for part in ordered]), np.concatenate([part.b for part in ordered])
    nodes = tuple(name for part in ordered for name in part.nodes)
    return _Followed(Affine(so_far.a * a, so_far.b * a + b, (*so_far.nodes, *nodes), so_far.order), join.outputs[0], before.axis)


def _axes(node: ir.Node) -> list[int]:
    """Those that a Gather or a Slice turns round."""
    if node.op_type != "Slice":
        return [int(attribute(node, "axis", 0))]
    axes, steps = constant(node.inputs[3]), constant(node.inputs[4])
    steps = np.zeros(0) if steps is None else steps.ravel()
    named = range(steps.size) if axes is None else axes.ravel().tolist()
    return [int(axis) for axis, step in zip(named, steps.tolist(), strict=False) if step == -1]


def _channel(value: ir.Value) -> int:
    """Which channel a Split, a Gather or a Slice takes; -1 where its constants do not tell."""
    node = value.producer()
    assert node is not None
    if node.op_type == "Split":
        return list(node.outputs).index(value)
    first = constant(node.inputs[1])
    return int(first.ravel()[0]) if first is not None and first.size == 1 else -1


def _readers(value: ir.Value) -> list[ir.Node]:
    return [node for node in value.consumers() if node.op_type not in ("Shape", "Size")]


def _step(node: ir.Node, value: ir.Value) -> tuple[Values, Values] | None:
    """What an operator by a constant makes of x: factor and offset."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first = node.inputs[0] is value
    found = _small(node.inputs[1] if first else node.inputs[0])
    if found is None:
        return None
    if node.op_type == "Add":
        return np.ones(1), found
    if node.op_type == "Mul":
        return found, np.zeros(1)
    if node.op_type == "Sub":
        return (np.ones(1), -found) if first else (-np.ones(1), found)
    return (1 / found, np.zeros(1)) if first and found.all() else None


def _by_convolution(node: ir.Node, value: ir.Value) -> tuple[Values, Values, tuple[int, ...]] | None:
    """A 1x1 convolution that makes each channel of one alone: factor, offset, and the order that it reads them in."""
    kernel = node.inputs[1] if node.op_type == "Conv" and node.inputs[0] is value else None
    if kernel is None or any(attribute(node, "pads", ())):
        return None
    weight, shift = ir.convenience.get_const_tensor(kernel), node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or isinstance(weight, ir.ExternalTensor) or list(weight.shape)[2:] != [1, 1] or weight.shape[0] != 3:
        return None
    if any(step != 1 for step in attribute(node, "strides", (1, 1))):
        return None
    matrix = np.asarray(weight.numpy(), np.float64)[:, :, 0, 0]
    full = np.diag(matrix[:, 0]) if attribute(node, "group", 1) == 3 and matrix.shape == (3, 1) else matrix
    order = tuple(int(i) for i in np.abs(full).argmax(axis=1))
    offset = np.zeros(1) if shift is None else _small(shift)
    if full.shape != (3, 3) or (np.count_nonzero(full, axis=1) != 1).any() or len(set(order)) < 3 or offset is None:
        return None
    return full[range(3), order], offset, order


def _fits(step: tuple[Values, Values], a: Values) -> bool:
    sizes = {len(part) for part in (*step, a)} - {1}
    return len(sizes) < 2


def _small(value: ir.Value | None, depth: int = 0) -> Values | None:
    """A constant of one value, or of one a channel, as float64; through casts and changes of its shape."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is not None:
        if isinstance(tensor, ir.ExternalTensor):
            return None
        if tensor.size > MOST:
            return _of_places(np.asarray(tensor.numpy(), np.float64))
        flat = np.asarray(tensor.numpy(), np.float64).ravel()
        return flat[:1] if flat.size and (flat == flat[0]).all() else flat if flat.size in (3, 4) else None
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in _SHAPES or depth > 4:
        return None
    return _small(node.inputs[0], depth + 1)


def _of_places(image: Values) -> Values | None:
    """A mean picture, as MATLAB and Caffe subtract it, as one value a channel."""
    inner = image[0] if image.ndim == 4 and len(image) == 1 else image
    if inner.ndim != 3 or 3 not in (inner.shape[0], inner.shape[2]):
        return None
    return np.asarray(inner.mean(axis=(1, 2) if inner.shape[0] == 3 else (0, 1)))


def _turns(node: ir.Node, value: ir.Value) -> bool:
    """Whether a node picks all three channels in the other order."""
    if node.op_type not in _TURNS or node.inputs[0] is not value:
        return False
    if node.op_type != "Slice":
        picks = constant(node.inputs[1]) if attribute(node, "batch_dims", 0) == 0 else None
        return picks is not None and picks.ravel().tolist() == [2, 1, 0]
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
    return steps is not None and sorted(steps.ravel().tolist())[:1] == [-1] and set(steps.ravel().tolist()) <= {-1, 1}


def by_mean(found: Affine) -> Normal | None:
    """Rules 2 and 3."""
    a, b, nodes, _ = found
    if not nodes or not a.all() or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    if not b.any():
        plain = any(np.allclose(np.abs(a), factor, rtol=0.01) for factor in WHOLE)
        return Normal(1.0, nodes) if plain else None
    for most in RANGES:
        mean = -b / a / most
        if ((mean >= MIDDLE[0]) & (mean <= MIDDLE[1])).all():
            return Normal(1.0 if most > 1 else 1 / 255, nodes, _color(mean, found.order))
    return None


def by_statistics(mean: Values, variance: Values, found: Affine, name: str) -> Normal | None:
    """Rule 2, of a BatchNormalization that `found` leads to; the variance with its epsilon."""
    a, b, nodes, _ = found
    if (variance < 0).any() or not a.all():
        return None
    middle, deviation = (mean - b) / a, np.sqrt(variance) / np.abs(a)
    for most in RANGES:
        inside = ((middle / most >= MIDDLE[0]) & (middle / most <= MIDDLE[1])).all()
        if inside and ((deviation / most >= SPREAD[0]) & (deviation / most <= SPREAD[1])).all():
            return Normal(1.0 if most > 1 else 1 / 255, (*nodes, name), _color(middle / most, found.order))
    return by_mean(found)


def _color(mean: Values, order: tuple[int, ...]) -> Literal["RGB", "BGR"] | None:
    return color_of(mean[np.argsort(order)]) if len(mean) == 3 and sorted(order) == [0, 1, 2] else None


def color_of(mean: Values) -> Literal["RGB", "BGR"] | None:
    """Rule 3, of means as shares of the range."""
    if len(mean) != 3:
        return None
    rgb, bgr = (float(np.abs(mean - np.array(known)).max()) for known in (IMAGENET, IMAGENET[::-1]))
    return "RGB" if rgb <= CLOSE < bgr else "BGR" if bgr <= CLOSE < rgb else None


def _called(node: ir.Node) -> str:
    return f"{node.op_type} '{node.name or node.outputs[0].name or ''}'"
