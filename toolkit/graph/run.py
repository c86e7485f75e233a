"""Runs a graph as it stands on ONNX Runtime's CPU: what a coming engine will answer, before any engine is there."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import DecodeError

from toolkit import cpu
from toolkit.backends import onnxruntime
from toolkit.errors import GraphError
from toolkit.onnxfile import serialise
from toolkit.types import Classifier, Target


def load_graph(path: Path) -> ir.Model:
    """The graph in an ONNX file of ours. Raises GraphError."""
    try:
        return ir.load(path)
    except (OSError, ValueError, DecodeError) as error:
        raise GraphError(f"the graph {path} cannot be read: {error}", remedy="Build the engine again") from error


def graph_runner(graph: ir.Model, threads: int | None = None) -> Classifier:
    """float32 [N, ...] -> logits float32 [N, classes]. Raises EngineError where ONNX Runtime cannot load the graph."""
    settings = {"threads": threads or cpu.cores()}
    live = onnxruntime.session(serialise(graph), Target("cpu"), settings)
    return onnxruntime.SessionExecutor(live, graph.graph.inputs[0].name or "", graph.graph.outputs[0].name or "").run
