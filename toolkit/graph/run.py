"""Runs a graph as it stands on ONNX Runtime's CPU: what a coming engine will answer, before any engine is there."""

from __future__ import annotations

import onnx_ir as ir

from toolkit.backends import onnxruntime
from toolkit.onnxfile import serialise
from toolkit.types import Classifier, Target


def graph_runner(graph: ir.Model, threads: int | None = None) -> Classifier:
    """float32 [N, ...] -> logits float32 [N, classes]. Raises EngineError where ONNX Runtime cannot load the graph."""
    settings = {"threads": threads or onnxruntime.cores()}
    live = onnxruntime.session(serialise(graph), Target("cpu"), settings)
    return onnxruntime.SessionExecutor(live, graph.graph.inputs[0].name or "", graph.graph.outputs[0].name or "").run
