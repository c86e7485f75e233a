"""Runs a graph as it stands on ONNX Runtime's CPU: what a coming engine will answer, before any engine is there."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.errors import GraphError
from toolkit.graph.fp8 import breaking
from toolkit.graph.rounding import AS_TYPED, UNROUNDING, as_rounded, holds_half
from toolkit.onnxfile import serialize
from toolkit.types import ON_CPU, Classifier, Target


def parse_graph(data: bytes, where: str) -> ir.Model:
    """The graph in the bytes of an ONNX file of ours; `where` they come from is for messages. Raises GraphError."""
    try:
        return ir.from_proto(onnx.load_from_string(data))
    except (ValueError, DecodeError) as error:
        raise GraphError(f"the graph of {where} cannot be read: {error}", remedy="Build the engine again") from error


def predicting_runner(graph: ir.Model, target: Target, threads: int | None = None) -> Classifier:
    """As `graph_runner`, with the numerics of `target`: a GPU holds FP16 and BF16 tensors in half precision, and so does this;
    on the CPU ONNX Runtime computes with them in FP32, whatever the graph says. Raises EngineError, GraphError."""
    if target.is_nvidia:
        return graph_runner(as_rounded(graph) if holds_half(graph) else graph, threads, without=AS_TYPED)
    if target.kind in ON_CPU or not holds_half(graph):
        return graph_runner(graph, threads)
    return graph_runner(as_rounded(graph), threads, without=UNROUNDING)


def graph_runner(graph: ir.Model, threads: int | None = None, *, without: Sequence[str] = ()) -> Classifier:
    """float32 [N, ...] -> logits float32 [N, classes]. `without` names optimizers of ONNX Runtime that are to be left out.

    Raises EngineError where ONNX Runtime cannot load the graph.
    """
    settings = {"threads": threads or cpu.cores()}
    live = onnxruntime.session(serialize(graph), Target("cpu"), settings, without=[*without, *breaking(graph)])
    return onnxruntime.SessionExecutor(live, graph.graph.inputs[0].name or "", graph.graph.outputs[0].name or "").run
