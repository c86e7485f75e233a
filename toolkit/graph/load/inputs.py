"""Inputs: one is the image; every other gets a fixed value or is read by nothing that matters.

1. Initializers are no inputs.
2. The image is `reference.input`, else the one input that is left, else the one of four dimensions.
3. An input named in `reference.feed` becomes a constant of that value. Whatever else remains must not be needed.
4. What the recipe's preprocessing makes must fit the image input; a dimension that the file leaves open is the recipe's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import initializer
from toolkit.recipe import Preprocess, Reference

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
WHOLE = (ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.INT32, ir.DataType.INT64)


def select_input(model: ir.Model, reference: Reference, path: Path) -> tuple[str, ...]:
    """Rules 2 and 3, in place; notes on what was done. Raises GraphError."""
    graph = model.graph
    by_name = {value.name or "": value for value in graph.inputs}
    listed = ", ".join(f"{name} {_shown(value)}" for name, value in by_name.items())
    for key in (*reference.feed, *([reference.input] if reference.input else [])):
        if key not in by_name:
            raise GraphError(f"{path} has no input '{key}'", remedy=f"Its inputs are {listed}")
    notes = tuple(f"input '{name}' of the file is always {value}" for name, value in reference.feed.items())
    for name, value in reference.feed.items():
        _feed(graph, by_name.pop(name), value, path)
    needed = _needed(graph)
    image = by_name.get(reference.input or "") or _guess([value for value in by_name.values() if value in needed])
    others = [value for value in by_name.values() if value is not image and value in needed]
    if image is None or others:
        remedy = "Name the image's in `reference.input`, and give each other one a value: `reference.feed = { NAME = 0 }`"
        raise GraphError(f"{path} has {len(by_name)} inputs; an image classifier has one: {listed}", remedy=remedy)
    idle = [value.name for value in by_name.values() if value is not image]
    graph.inputs[:] = [image]
    return (*notes, *(f"input '{name}' of the file is left out: the output does not depend on it" for name in idle))


def _guess(values: list[ir.Value]) -> ir.Value | None:
    if len(values) == 1:
        return values[0]
    images = [value for value in values if value.shape is not None and len(value.shape) == 4]
    images = [value for value in images if list(value.shape or ())[1:].count(1) < 2]  # constants a channel are no picture
    return images[0] if len(images) == 1 else None


def _needed(graph: ir.Graph) -> set[ir.Value]:
    """Every value that an output depends on; what subgraphs read counts as read by their node."""
    found, stack = set[ir.Value](), list[ir.Value | None](graph.outputs)
    while stack:
        value = stack.pop()
        if value is None or value in found:
            continue
        found.add(value)
        node = value.producer()
        if node is not None:
            stack.extend(node.inputs)
            for inner in node.attributes.values():
                if inner.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                    graphs = [inner.as_graph()] if inner.type == ir.AttributeType.GRAPH else inner.as_graphs()
                    stack.extend(value for g in graphs for n in ir.traversal.RecursiveGraphIterator(g) for value in n.inputs)
                    stack.extend(value for g in graphs for value in g.outputs)
    return found


def _feed(graph: ir.Graph, value: ir.Value, given: Any, path: Path) -> None:
    if value.dtype is None:
        raise GraphError(f"input '{value.name}' of {path} has no type, so it cannot be fed")
    array = np.asarray(given).astype(value.dtype.numpy())
    rank = len(value.shape) if value.shape is not None else array.ndim
    if array.ndim == 0 and rank:
        dims = [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]
        if np.prod(dims, dtype=np.int64) > 1 << 20:
            raise GraphError(f"input '{value.name}' of {path} takes {dims}, too many values for `reference.feed`")
        array = np.broadcast_to(array, dims)
    if array.ndim != rank:
        raise GraphError(f"`reference.feed` gives '{value.name}' {list(array.shape)}, and it takes {_shown(value)}")
    name = value.name or ""
    value.name = f"{name}.input"
    graph.inputs.remove(value)
    ir.convenience.replace_all_uses_with(value, initializer(graph, name, array))


def fit_input(model: ir.Model, preprocess: Preprocess, path: Path) -> int | None:
    """Rule 4; the batch that the file has fixed, if any. Raises GraphError."""
    value = model.graph.inputs[0]
    if value.dtype not in (*FLOATS, *WHOLE):
        raise GraphError(f"input '{value.name}' of {path} takes {value.dtype}, which a picture cannot be converted to")
    if value.shape is not None and len(value.shape) != 4:
        what = f"input '{value.name}' of {path} has shape {_shown(value)}, not four dimensions: it takes no batch of images"
        raise GraphError(what, remedy="Export it with an input [N, C, H, W] or [N, H, W, C]")
    if value.dtype in WHOLE:
        _require_bytes(value, preprocess, path)
    if value.shape is None:
        return None
    found, want = list(value.shape)[1:], preprocess.input_shape
    if all(isinstance(dim, int) and dim not in (1, 3) for dim in (found[0], found[-1])):
        what = f"input '{value.name}' of {path} takes {_shown(value)}: no channel for each of red, green and blue, nor one alone"
        raise GraphError(what, remedy="Wrap the model in one that makes its channels of three, and export that")
    if any(isinstance(have, int) and have != need for have, need in zip(found, want, strict=True)):
        shown = [dim if isinstance(dim, int) else "?" for dim in found]
        other = "NHWC" if preprocess.layout == "NCHW" else "NCHW"
        turned = found[-1] == want[0] if other == "NHWC" else found[0] == want[-1]
        hint = f'`layout = "{other}"`' if turned else "`size`, `color` and `layout` (NCHW or NHWC)"
        raise GraphError(
            f"input '{value.name}' of {path} takes {shown} an image, the recipe's [preprocess] makes {list(want)}",
            remedy=f"Set {hint} to fit",
        )
    batch: Any = value.shape[0]
    return batch if isinstance(batch, int) and batch > 0 else None


def _require_bytes(value: ir.Value, preprocess: Preprocess, path: Path) -> None:
    """An input of whole numbers takes pixels as they are; scaled ones would all become 0."""
    plain = preprocess.scale == 1 and set(preprocess.mean) == {0} and set(preprocess.std) == {1}
    if not plain:
        n = preprocess.channels
        lines = f"scale = 1, mean = {[0] * n}, std = {[1] * n}"
        what = f"input '{value.name}' of {path} takes {value.dtype}: pixels of 0 to 255 as they are"
        raise GraphError(what, remedy=f"Set in [preprocess]: {lines}")


def _shown(value: ir.Value) -> str:
    return "[?]" if value.shape is None else f"[{', '.join(str(d) if isinstance(d, int) else '?' for d in value.shape)}]"
