"""How large every tensor of an FP32 graph becomes over some images: what FP16 must be able to hold."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.graph.edit import constant, finish, make, sole_consumer
from toolkit.graph.fp8 import breaking
from toolkit.onnxfile import serialize
from toolkit.types import Float, Target


def magnitudes(model: ir.Model, images: Iterable[Float], threads: int | None = None) -> dict[str, float]:
    """Tensor name -> the largest |x| over `images`, batches [n, ...] float32, for every float32 tensor that a node computes.

    A tensor that only a Relu reads is left out: what the Relu gives is what counts. One that turns NaN or infinite has
    infinity. The graph reduces each tensor to two numbers itself, so that memory stays what the graph alone takes.
    """
    probe, names = _with_peaks(model)
    live = onnxruntime.session(serialize(probe), Target("cpu"), {"threads": threads or cpu.cores()}, without=breaking(probe))
    largest = dict.fromkeys(names, 0.0)
    for batch in images:
        found = live.run(None, {model.graph.inputs[0].name: batch})
        for name, peak, total in zip(names, found[::2], found[1::2], strict=True):
            # ONNX Runtime's ReduceMax passes over a NaN unless it stands first; the sum of magnitudes is NaN only by one
            largest[name] = math.inf if math.isnan(total) else max(largest[name], float(peak))
    return largest


def _with_peaks(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """A copy that puts out the largest magnitude of each tensor, and the sum of its magnitudes, and nothing else; the tensors."""
    model = model.clone()
    graph = model.graph
    values = [value for value in graph.inputs if value.dtype == ir.DataType.FLOAT]
    values += [output for node in graph for output in node.outputs if _counts(output)]
    outputs = []
    for index, value in enumerate(values):
        magnitude = make("Abs", [value], f"peak.{index}.abs")
        graph.append(magnitude)
        for op in ("ReduceMax", "ReduceSum"):
            number = make(op, magnitude.outputs, f"peak.{index}.{op}", keepdims=0)
            number.outputs[0].type, number.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
            graph.append(number)
            outputs.append(number.outputs[0])
    graph.outputs[:] = outputs
    return finish(model), [value.name or "" for value in values]


def _counts(value: ir.Value) -> bool:
    reader = sole_consumer(value)
    clipped = reader is not None and reader.op_type == "Relu"
    return value.dtype == ir.DataType.FLOAT and not clipped and constant(value) is None and np.prod(_sizes(value)) != 0


def _sizes(value: ir.Value) -> list[int]:
    return [size for size in value.shape or () if isinstance(size, int)]
