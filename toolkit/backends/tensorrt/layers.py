"""What an engine consists of, layer by layer: from its inspector where its GPU is, else from the detailed log of its build."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.backends.tensorrt.library import Library, Message, log_of

if TYPE_CHECKING:
    import onnx_ir as ir

ROW = re.compile(
    r"^Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], Constants: \[.*?\], Outputs: \[(.*?)\], .*?Metadata: (.*)$",
    re.MULTILINE,
)
NOISE = ("signal", "wait", "shape_call")  # order between streams, no work
POINTWISE = "kgen"  # a kernel that TensorRT-RTX generates for what it does not fuse into a convolution


def inspect(library: Library, plan: bytes) -> list[dict[str, Any]] | None:
    """The inspector's objects, a layer each, on the current GPU; None for a plan that it cannot read, such as a stripped one."""
    trt = library.trt
    runtime = trt.Runtime(log_of(trt).handle)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    found: list[dict[str, Any]] = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))["Layers"]
    return found


def rows_of(heard: Sequence[Message]) -> list[dict[str, Any]]:
    """The layers that a detailed build log lists, without those that only order streams.

    Each is `name`, `type`, the dtypes of `inputs` and `outputs`, and the ONNX `nodes` in it.
    """
    rows = [match for message in heard for match in ROW.findall(message.text)]
    return [
        {"name": name, "type": kind, "inputs": _dtypes(inputs), "outputs": _dtypes(outputs), "nodes": _nodes(metadata)}
        for name, kind, inputs, outputs, metadata in rows
        if kind not in NOISE
    ]


def _dtypes(tensors: str) -> list[str]:
    return re.findall(r"Datatype: (\w+)", tensors)


def _nodes(metadata: str) -> list[str]:
    return re.findall(r"\[ONNX Layer: ([^\]]*)\]", metadata)


def describe_quantized(graph: ir.Model, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """How many of the graph's INT8 or FP8 layers are that in the engine, as a note for its manifest; nothing without any."""
    wanted, kind = int8_layers(graph), "FP8" if is_fp8(graph) else "INT8"
    if not wanted or not rows:
        return ()
    own = [row for row in rows if row["type"] != POINTWISE]
    real = {node for row in own if {"Int8", "FP8"} & set(row["inputs"][:1]) for node in row["nodes"]}
    missing = [name for name in wanted if name not in real]
    text = f"{len(wanted) - len(missing)} of {len(wanted)} {kind} layers of the graph compute in {kind}"
    if missing:
        text += f"; this GPU computes {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''} in floating point"
    between = sum(row["type"] == POINTWISE for row in rows)
    return (f"{text}; {between} kernels between them add biases, apply Relu and requantize",)


def is_fp8(graph: ir.Model) -> bool:
    """Whether the graph's Q/DQ pairs are float8."""
    dtypes = (output.dtype for node in graph.graph for output in node.outputs)
    return any(dtype is not None and dtype.name == "FLOAT8E4M3FN" for dtype in dtypes)


def int8_layers(graph: ir.Model) -> tuple[str, ...]:
    """The nodes whose weight comes from a DequantizeLinear, be it through a Cast."""
    layers = (node for node in graph.graph if node.op_type in ("Conv", "Gemm", "MatMul"))
    return tuple(node.name or "" for node in layers if _is_dequantized(node.inputs[1]))


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Cast":
        return _is_dequantized(producer.inputs[0])
    return producer is not None and producer.op_type == "DequantizeLinear"
