"""Normal: whether a file normalizes its input itself, and which pixels it expects. Read off the file, before any recipe.

1. From the image on, subtractions, divisions, sums, products and a BatchNormalization by constants are followed, as y = a x + b
   in each channel, through casts, changes of layout and a Resize, up to the first other operator. Channels that are cut apart, by
   Split, Slice or Gather, are followed one by one, up to the Concat that joins them.
2. A mean, -b / a, in the middle of 0 to 255, or of 0 to 1, is that of pixels in that range; a plain division by 255 or 127.5 is
   one of pixels of 0 to 255. BatchNormalization says the same by the mean and the deviation that it keeps.
3. Anything else says nothing: such as torchvision's Inception, which takes its input from ImageNet's normalization to another.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

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
_THROUGH = ("Cast", "Identity", "Transpose", "Dropout", "Squeeze", "Unsqueeze", "Resize", "Upsample")
_TURNS = ("Gather", "Slice")  # of three channels: RGB to BGR
_SHAPES = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten")


class Normal(NamedTuple):
    """`scale` is what pixels of 0 to 255 are to be multiplied by, with a mean of 0 and a deviation of 1; `nodes` do the rest."""

    scale: float
    nodes: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"the file normalizes its input itself ({', '.join(self.nodes)})"


def normalization_of(path: Path, name: str | None = None) -> Normal | None:
    """Of its image, or its input `name`. None where it does not normalize, or cannot be read; whoever loads it says why."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        graph = ir.from_proto(onnx.load(str(path), load_external_data=False)).graph
        return normalization(graph, name)
    except Exception:  # whatever a library raises over a foreign file; it is refused in its own words where it is loaded
        return None


def normalization(graph: ir.Graph, name: str | None = None) -> Normal | None:
    """As `normalization_of`, of a graph whose operators are as they came."""
    images = [value for value in graph.inputs if not value.is_initializer()]
    named = [value for value in images if value.name == name] if name else images
    pictures = [value for value in named if value.shape is not None and len(value.shape) == 4]
    value = named[0] if len(named) == 1 else pictures[0] if len(pictures) == 1 else None
    if value is None:
        return None
    found = _followed(value)
    readers = _readers(found.end)
    if len(readers) == 1 and readers[0].op_type == "BatchNormalization" and not readers[0].domain:
        return _by_statistics(readers[0], found.a, found.b, list(found.nodes))
    return _by_mean(found.a, found.b, list(found.nodes))


class _Affine(NamedTuple):
    """`end` holds y = a x + b, as `nodes` made it."""

    a: Values
    b: Values
    nodes: tuple[str, ...]
    end: ir.Value


def _followed(value: ir.Value) -> _Affine:
    """Rule 1, from `value` on."""
    found = _Affine(np.ones(1), np.zeros(1), (), value)
    for _ in range(STEPS):
        readers = _readers(found.end)
        joined = _joined(found.end, readers)
        if joined is None and (len(readers) != 1 or readers[0].domain not in ("", "ai.onnx")):
            break
        if joined is None and (readers[0].op_type in _THROUGH or _turns(readers[0], found.end)):
            found = found._replace(end=readers[0].outputs[0])
            continue
        step = (joined.a, joined.b) if joined is not None else _step(readers[0], found.end)
        if step is None or not _fits(step, found.a):
            break
        nodes, end = (joined.nodes, joined.end) if joined is not None else ((_called(readers[0]),), readers[0].outputs[0])
        found = _Affine(found.a * step[0], found.b * step[0] + step[1], (*found.nodes, *nodes), end)
    return found


def _joined(value: ir.Value, readers: list[ir.Node]) -> _Affine | None:
    """What becomes of channels that are cut apart until they are joined again; None where `readers` do not cut them apart."""
    if not readers or any(node.op_type not in (*_TURNS, "Split") or node.inputs[0] is not value for node in readers):
        return None
    parts = {part.end: part for node in readers for output in node.outputs for part in [_followed(output)]}
    joins = {node for end in parts for node in _readers(end)}
    join = joins.pop() if len(joins) == 1 else None
    if join is None or join.op_type != "Concat" or len(parts) < 3 or set(join.inputs) != set(parts):
        return None
    ordered = [parts[end] for end in join.inputs if end is not None]
    if any(len(part.a) > 1 or len(part.b) > 1 for part in ordered):
        return None
    nodes = tuple(name for part in ordered for name in part.nodes)
    a, b = np.concatenate([part.a for part in ordered]), np.concatenate([part.b for part in ordered])
    return _Affine(a, b, nodes, join.outputs[0])


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


def _fits(step: tuple[Values, Values], a: Values) -> bool:
    sizes = {len(part) for part in (*step, a)} - {1}
    return len(sizes) < 2


def _small(value: ir.Value | None, depth: int = 0) -> Values | None:
    """A constant of one value, or of one a channel, as float64; through casts and changes of its shape."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is not None:
        if isinstance(tensor, ir.ExternalTensor) or tensor.size > MOST:
            return None
        flat = np.asarray(tensor.numpy(), np.float64).ravel()
        return flat[:1] if flat.size and (flat == flat[0]).all() else flat if flat.size in (3, 4) else None
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in _SHAPES or depth > 4:
        return None
    return _small(node.inputs[0], depth + 1)


def _turns(node: ir.Node, value: ir.Value) -> bool:
    """Whether a node picks all three channels in the other order."""
    if node.op_type not in _TURNS or node.inputs[0] is not value:
        return False
    if node.op_type == "Gather":
        picks = constant(node.inputs[1])
        return picks is not None and picks.ravel().tolist() == [2, 1, 0]
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
    return steps is not None and sorted(steps.ravel().tolist())[:1] == [-1] and set(steps.ravel().tolist()) <= {-1, 1}


def _by_mean(a: Values, b: Values, nodes: list[str]) -> Normal | None:
    """Rule 2."""
    if not nodes or not a.all() or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    if not b.any():
        plain = any(np.allclose(np.abs(a), factor, rtol=0.01) for factor in WHOLE)
        return Normal(1.0, tuple(nodes)) if plain else None
    for most in RANGES:
        mean = -b / a / most
        if ((mean >= MIDDLE[0]) & (mean <= MIDDLE[1])).all():
            return Normal(1.0 if most > 1 else 1 / 255, tuple(nodes))
    return None


def _by_statistics(node: ir.Node, a: Values, b: Values, nodes: list[str]) -> Normal | None:
    mean, variance = (_small(value) for value in node.inputs[3:5])
    if mean is None or variance is None or (variance < 0).any() or not a.all():
        return None
    middle = (mean - b) / a
    deviation = np.sqrt(variance + float(attribute(node, "epsilon", 1e-5))) / np.abs(a)
    for most in RANGES:
        inside = ((middle / most >= MIDDLE[0]) & (middle / most <= MIDDLE[1])).all()
        if inside and ((deviation / most >= SPREAD[0]) & (deviation / most <= SPREAD[1])).all():
            return Normal(1.0 if most > 1 else 1 / 255, (*nodes, _called(node)))
    return _by_mean(a, b, nodes)


def _called(node: ir.Node) -> str:
    return f"{node.op_type} '{node.name or node.outputs[0].name or ''}'"
