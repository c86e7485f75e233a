"""Fingerprint: tells two graphs apart by what they compute, not by how their file happens to be written."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from toolkit.types import Frozen

if TYPE_CHECKING:
    import onnx_ir as ir


class Fingerprint(Frozen, frozen=True):
    """SHA-256 in hex of a graph's layers (operators, attributes, tensor names, shapes) and of its weights (names, values)."""

    layers: str
    weights: str

    @classmethod
    def of(cls, graph: ir.Model) -> Fingerprint:
        """Producer, version, doc strings and metadata do not count."""
        layers, weights = hashlib.sha256(), hashlib.sha256()
        for value in (*graph.graph.inputs, *graph.graph.outputs):
            layers.update(f"{value.name} {value.dtype} {value.shape}\n".encode())
        for node in graph.graph:
            ends = [[value and value.name for value in side] for side in (node.inputs, node.outputs)]
            settings = sorted((name, _text(value)) for name, value in node.attributes.items())
            layers.update(f"{node.domain}.{node.op_type} {ends} {settings}\n".encode())
        for name in sorted(graph.graph.initializers):
            tensor = graph.graph.initializers[name].const_value
            layers.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode() if tensor else b"?")
            weights.update(name.encode() + (tensor.tobytes() if tensor else b"?"))
        return cls(layers=layers.hexdigest(), weights=weights.hexdigest())


def _text(attribute: Any) -> str:
    value = attribute.value
    return hashlib.sha256(value.tobytes()).hexdigest() if hasattr(value, "tobytes") else str(value)
