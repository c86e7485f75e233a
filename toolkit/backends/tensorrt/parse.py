"""ONNX into a TensorRT network, and the parser's refusals in words: the node, what is unsupported, what to do."""

from __future__ import annotations

import re
from typing import Any

from toolkit.backends.tensorrt.library import Library
from toolkit.errors import GraphError

SHOWN = 3  # nodes that one message names
UNKNOWN = "the operator is not supported"


def parse(library: Library, network: Any, data: bytes, logger: Any) -> None:
    """Fill an INetworkDefinition from the bytes of an ONNX file. Raises GraphError, which names the nodes that were refused."""
    parser = library.trt.OnnxParser(network, logger)
    accepted = parser.parse(data)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not accepted or errors:
        raise _refusal(library, errors)
    if network.num_inputs == 0 or network.num_outputs == 0:
        raise GraphError(f"{library.name} finds no input or no output in the graph", remedy="Export the model again")


def _refusal(library: Library, errors: list[Any]) -> GraphError:
    if not errors or errors[0].node() < 0:
        reason = _reason(errors[0].desc()) if errors else "it gives no reason"
        return GraphError(f"{library.name} cannot read the ONNX file: {reason}", remedy="Export the model again")
    named = [f"node '{error.node_name()}' ({error.node_operator()}): {_reason(error.desc())}" for error in errors[:SHOWN]]
    more = f", and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
    return GraphError(f"{library.name} refuses {'; '.join(named)}{more}", remedy=_remedy(errors[0]))


def _reason(description: str) -> str:
    """The sentence in a parser's report that says what is wrong, without source files and the echo of an absent GPU."""
    lines = [line.strip() for line in description.splitlines() if line.strip() and "catchCudaError" not in line]
    found = re.search(r"Error Code \d+: [^(]*\((.*?)(?: In \w+ at .*)?\)$", lines[-1]) if lines else None
    text = found[1] if found else lines[-1] if lines else ""
    unknown = text in ("", "false") or "Plugin not found" in text or "plugin registry" in text
    return UNKNOWN if unknown else text.rstrip(".")


def _remedy(error: Any) -> str:
    operator, text = error.node_operator(), error.desc()
    if operator in ("QuantizeLinear", "DequantizeLinear"):
        if "Int32" in text:
            return "Leave biases in floating point: TensorRT takes no quantized bias"
        return "Quantize symmetrically, int8 with zero point 0, as the toolkit's scheme `tensorrt` does"
    if _reason(text) == UNKNOWN:
        return f"Replace {operator} in the model before its export, or build for cpu or cuda"
    return "Correct the node in the model, or build for cpu or cuda"
