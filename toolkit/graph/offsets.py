"""Offsets: where two convolutions meet in an Add, only the sum of their biases counts; INT8 wants them alike.

Opposite offsets of the two branches cancel in FP32 and fill both tensors' ranges in INT8. The pass moves bias from one to the
other, channel by channel, until both branches have the same mean; the function stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from toolkit.graph.channels import Channels
from toolkit.graph.edit import constant, finish, initializer, sole_consumer


def joined_branches(model: ir.Model) -> list[str]:
    """The tensors whose means `share_offsets` goes by."""
    pairs = [branches for node in model.graph if (branches := _branches(node)) is not None]
    return [branch.outputs[0].name or "" for pair in pairs for branch in pair]


def share_offsets(model: ir.Model, seen: Mapping[str, Channels]) -> ir.Model:
    """A copy of a BatchNorm-folded FP32 graph; `seen` is what its `joined_branches` carry. Raises GraphError."""
    model = model.clone()
    pairs = [branches for node in model.graph if (branches := _branches(node)) is not None]
    if not pairs:
        return model
    for first, second in pairs:
        shift = (seen[second.outputs[0].name or ""].mean - seen[first.outputs[0].name or ""].mean) / 2
        for branch, move in ((first, shift), (second, -shift)):
            bias = branch.inputs[2]
            old = constant(bias)
            assert bias is not None and old is not None and branch.graph is not None  # as `_branches` has seen
            new = (old.astype(np.float64) + move).astype(np.float32)
            branch.replace_input_with(2, initializer(branch.graph, f"{bias.name}.shared", new))
    return finish(model)


def _branches(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """The two convolutions with a bias that nothing but this Add reads."""
    if node.domain or node.op_type != "Add":
        return None
    found = []
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if value is None or producer is None or producer.op_type != "Conv" or sole_consumer(value) is not node:
            return None
        if len(producer.inputs) < 3 or constant(producer.inputs[2]) is None:
            return None
        found.append(producer)
    return None if found[0] is found[1] else (found[0], found[1])
