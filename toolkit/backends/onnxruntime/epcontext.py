"""An ONNX file that carries a TensorRT-RTX engine: one EPContext node, as ONNX Runtime's plugin for TensorRT-RTX reads it.

The node (domain com.microsoft) holds the plan's bytes in `ep_cache_context` (`embed_mode` 1), or the name of a file beside it
(`embed_mode` 0); its inputs and outputs are the engine's, by name. The provider finds its own nodes by `source`, and compares
`hardware_architecture` with the GPU: `80+` is any from Ampere on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto, TensorProto, helper

from toolkit.types import TensorSpec

PROVIDER = "NvTensorRTRTXExecutionProvider"
DOMAIN = "com.microsoft"
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
EMBEDDABLE = (1 << 31) - (1 << 20)  # bytes; protobuf ends at 2 GiB


def ep_context(
    plan: bytes | str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    name: str,
    sdk: str,
    architecture: str,
    metadata: Mapping[str, str],
) -> bytes:
    """The file's bytes. `plan` is the engine itself, or the name of its file beside this one; `sdk` the version that built it."""
    attributes: dict[str, Any] = {
        "main_context": 1,
        "embed_mode": int(isinstance(plan, bytes)),
        "ep_cache_context": plan,
        "source": PROVIDER,
        "ep_sdk_version": sdk,
        "hardware_architecture": architecture,
        "partition_name": f"{PROVIDER}_{name}",
    }
    names = [spec.name for spec in inputs], [spec.name for spec in outputs]
    node = helper.make_node("EPContext", *names, name=name, domain=DOMAIN, **attributes)
    takes, gives = ([helper.make_tensor_value_info(s.name, TYPES[s.dtype], s.shape) for s in some] for some in (inputs, outputs))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(helper.make_graph([node], name, takes, gives), opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, dict(metadata))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def plan_of(file: bytes) -> bytes:
    """The plan inside such a file."""
    (node,) = ModelProto.FromString(file).graph.node
    (found,) = (attribute.s for attribute in node.attribute if attribute.name == "ep_cache_context")
    return bytes(found)
