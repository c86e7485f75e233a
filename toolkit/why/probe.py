"""Probe: one pass that says, for every layer at once, what noise is born in it and what it inherits.

One graph holds the FP32 network F, its typed twin T, and each typed layer three times more, fed by what F computes:

    whole    as it is: weights and activations rounded
    clipped  its Q/DQ pairs clip and do not round
    weights  its pairs do nothing, only its weights are rounded

With y the layer's result in F, `weights - y` is what its weights cost, `clipped - weights` what clipping costs, `whole - clipped`
what rounding activations costs; the three sum to what is born here, `whole - y`. What T has beyond, `T - whole`, it inherits.
Only sums of squares leave the graph, one for each image and channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.errors import CalibrationError
from toolkit.graph.fp8 import breaking
from toolkit.graph.rounding import UNROUNDING
from toolkit.onnxfile import serialize
from toolkit.types import Float, Progress, Target
from toolkit.why.blocks import PairedLayer
from toolkit.why.weave import Rounding, Weaver

Power = NDArray[np.float64]
MEASURES = ("signal", "noise", "born", "inherited", "weights", "clipping", "rounding")


def live(model: ir.Model) -> Any:
    """A session of a woven graph: every pair and every rounding stays, in floating point, on all cores."""
    return onnxruntime.session(serialize(model), Target("cpu"), {}, unfused=True, without=[*UNROUNDING, *breaking(model)])


class Powers:
    """Of one layer: each of MEASURES as sums of squares [images, channels]; `peak` is the largest |y|."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Power]] = {measure: [] for measure in MEASURES}
        self.peak = 0.0

    def add(self, measure: str, row: Float) -> None:
        self._rows[measure].append(np.asarray(row, np.float64).reshape(-1))

    def __getitem__(self, measure: str) -> Power:
        rows = self._rows[measure]
        return np.stack(rows) if rows else np.zeros_like(np.stack(self._rows["signal"]))


def probe(
    plain: ir.Model, typed: ir.Model, layers: Sequence[PairedLayer], images: Iterable[Float], progress: Progress | None = None
) -> dict[str, Powers]:
    """Layer name -> its powers, over `images` (float32, one at a time). Raises CalibrationError where FP32 is not finite."""
    images = list(images)
    model = _woven(plain, typed, layers)
    session = live(model)
    names = [value.name or "" for value in model.graph.outputs]
    found = {block.name: Powers() for block in layers}
    for index, image in enumerate(images):
        for name, row in zip(names, session.run(names, {"input": image}), strict=True):
            measure, _, layer = name.partition(" ")
            if measure == "peak":
                found[layer].peak = max(found[layer].peak, float(row))
            else:
                found[layer].add(measure, row)
            if measure == "signal" and not np.isfinite(row).all():
                what = f"'{layer}' holds NaN or infinity in FP32 for image {index}"
                raise CalibrationError(what, remedy="Look at the weights of that layer")
        if progress:
            progress(index + 1, len(images))
    return found


def _woven(plain: ir.Model, typed: ir.Model, layers: Sequence[PairedLayer]) -> ir.Model:
    weaver = Weaver()
    source = plain.graph.inputs[0]
    shape = [1, *(size if isinstance(size, int) else "?" for size in list(source.shape or [])[1:])]
    entry = weaver.input("input", shape)
    ours: dict[str, ir.Value] = {source.name or "": entry}  # F's tensors by name
    theirs: dict[str, ir.Value] = {source.name or "": entry}  # T's
    outputs: list[ir.Value] = []
    for block in layers:
        result = part(weaver, block, ours)
        ours[block.output] = result
        theirs[block.output] = twin = part(weaver, block, theirs, typed=True)
        outputs += _measured(weaver, block, result, twin, ours)
    opset = max(plain.opset_imports[""], typed.opset_imports[""])
    return weaver.model([entry], outputs, opset)


def part(
    weaver: Weaver, block: PairedLayer, tensors: dict[str, ir.Value], typed: bool = False, rounding: Rounding = "as is"
) -> ir.Value:
    """A copy of the layer that reads `tensors`."""
    nodes = block.typed if typed else block.plain
    values = {v: tensors[v.name] for node in nodes for v in node.inputs if v is not None and v.name in block.reads}
    end = next(v for node in nodes for v in node.outputs if v.name == block.output)
    weaver.copy(nodes, values, rounding)
    return values[end]


def _measured(weaver: Weaver, block: PairedLayer, result: ir.Value, twin: ir.Value, ours: dict[str, ir.Value]) -> list[ir.Value]:
    """Outputs called `measure layer`."""
    shape = block.plain[-1].outputs[0].shape
    rank = 4 if shape is None else len(shape)
    axes = weaver.constant(np.array([axis for axis in range(1, rank) if axis != channel_axis(rank)], np.int64))

    def power(value: ir.Value, measure: str) -> ir.Value:
        name = f"{measure} {block.name}"
        if rank == 2:
            return weaver.op("Mul", [value, value], name)
        return weaver.op("ReduceSumSquare", [value, axes], name, keepdims=0)

    def less(one: ir.Value, other: ir.Value) -> ir.Value:
        return weaver.op("Sub", [one, other])

    every = weaver.op("Abs", [result])
    outputs = [power(result, "signal"), power(less(twin, result), "noise")]
    outputs.append(weaver.op("ReduceMax", [every], f"peak {block.name}", keepdims=0))
    if block.precision == "fp32":
        return [*outputs, power(less(twin, result), "inherited")]
    modes: tuple[Rounding, ...] = ("as is", "clipped", "none")
    whole, clipped, weights = (part(weaver, block, ours, True, mode) for mode in modes)
    outputs += [power(less(whole, result), "born"), power(less(twin, whole), "inherited")]
    outputs += [power(less(weights, result), "weights"), power(less(clipped, weights), "clipping")]
    return [*outputs, power(less(whole, clipped), "rounding")]


def channel_axis(rank: int) -> int:
    """Where the channels lie: [N, C, H, W] and [N, C], but [N, T, C]."""
    return 2 if rank == 3 else 1
