"""Alone: what the noise born in each layer does to the logits, where everything else is FP32.

A batch holds the same image many times. Row 0 is clean; in row j, the result of layer j is exchanged for what the typed layer
makes of row 0. So one run of the FP32 network tells what each of many layers, alone in its precision, does to the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import attribute
from toolkit.types import Float, Progress
from toolkit.why.blocks import PairedLayer
from toolkit.why.probe import Power, live, part
from toolkit.why.weave import Weaver

ROWS = 16  # layers in a batch


def alone(
    plain: ir.Model, layers: Sequence[PairedLayer], images: Sequence[Float], progress: Progress | None = None
) -> tuple[dict[str, Power], Power]:
    """(layer -> the noise power in the logits [images], their signal power [images]). Layers in FP32 are left out, and so are
    those whose tensors have images and something else along one axis: there an image cannot be told from another."""
    narrow = [block for block in layers if block.precision != "fp32" and _rows_of(block, plain) is not None]
    session = live(_woven(plain, layers, narrow))
    noise = {block.name: np.zeros(len(images)) for block in narrow}
    signal = np.zeros(len(images))
    groups = [range(start, min(start + ROWS, len(narrow))) for start in range(0, len(narrow), ROWS)]
    for index, image in enumerate(images):
        for done, group in enumerate(groups):
            rows = np.repeat(image, len(group) + 1, axis=0)
            mask = np.zeros((len(rows), len(narrow)), np.float32)
            mask[np.arange(1, len(rows)), list(group)] = 1
            logits = session.run(None, {"input": rows, "mask": mask})[0].astype(np.float64)
            signal[index] = float((logits[0] ** 2).sum())
            for row, layer in enumerate(group, 1):
                noise[narrow[layer].name][index] = float(((logits[row] - logits[0]) ** 2).sum())
            if progress:
                progress(index * len(groups) + done + 1, len(images) * len(groups))
    return noise, signal


def _woven(plain: ir.Model, layers: Sequence[PairedLayer], narrow: Sequence[PairedLayer]) -> ir.Model:
    weaver = Weaver()
    source = plain.graph.inputs[0]
    sizes = [size if isinstance(size, int) else "?" for size in list(source.shape or [])[1:]]
    entry, mask = weaver.input("input", ["rows", *sizes]), weaver.input("mask", ["rows", len(narrow)])
    first = weaver.constant(np.array([0], np.int64))
    tensors = {source.name or "": entry}
    clean: dict[str, ir.Value] = {}
    column = {block.name: index for index, block in enumerate(narrow)}
    for block in layers:
        result = part(weaver, block, tensors)
        if block.name in column:
            axes = _rows_of(block, plain) or {}
            for name in block.reads:
                if name not in clean:
                    clean[name] = weaver.op("Gather", [tensors[name], first], axis=axes[name][0])
            axis, rank = axes[block.output]
            change = weaver.op("Sub", [part(weaver, block, clean, True), weaver.op("Gather", [result, first], axis=axis)])
            which = weaver.op("Gather", [mask, weaver.constant(np.array(column[block.name], np.int64))], axis=1)
            spread = np.array([-1 if at == axis else 1 for at in range(rank)], np.int64)
            which = weaver.op("Reshape", [which, weaver.constant(spread)])
            result = weaver.op("Add", [result, weaver.op("Mul", [which, change])])
        tensors[block.output] = result
    logits = weaver.op("Identity", [tensors[plain.graph.outputs[0].name or ""]], "logits")
    return weaver.model([entry, mask], [logits], plain.opset_imports[""])


def _rows_of(block: PairedLayer, plain: ir.Model) -> dict[str, tuple[int, int]] | None:
    """Of each tensor that the layer reads or makes: (the axis of images, its rank). None where one has no such axis."""
    images = _image_axes(plain)
    if not images:
        return None
    values = {v.name: v for node in block.plain for v in (*node.inputs, *node.outputs) if v is not None and v.name}
    values[plain.graph.inputs[0].name or ""] = plain.graph.inputs[0]
    found = {}
    for name in (*block.reads, block.output):
        value = values.get(name)
        shape = value.shape if value is not None else None
        axes = [axis for axis, size in enumerate(shape or ()) if size in images]
        if shape is None or len(axes) != 1:
            return None
        found[name] = (axes[0], len(shape))
    return found


def _image_axes(plain: ir.Model) -> list[int | ir.SymbolicDim]:
    """The sizes that count images: the input's first, and what shape inference calls that one behind a Flatten."""
    shape = plain.graph.inputs[0].shape
    found = [] if shape is None else [shape[0]]
    for node in plain.graph:
        if node.op_type != "Flatten" or attribute(node, "axis", 1) != 1 or node.inputs[0] is None:
            continue
        before, after = node.inputs[0].shape, node.outputs[0].shape
        if before is not None and after is not None and before[0] in found:
            found.append(after[0])
    return found
