"""Randomness: a network that draws random numbers answers an image differently each time; refused by the node that draws."""

from __future__ import annotations

import onnx_ir as ir

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant
from toolkit.graph.load.constants import called

DRAWS = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def refuse_randomness(model: ir.Model, where: str) -> None:
    """Raises GraphError for a node whose result is drawn again in each call, once constants are folded: what only asks for the
    shape of a random tensor is gone by then. A `seed` makes no difference: it decides the first call alone."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in DRAWS:
            what = f"{where}: {called(node)} draws random numbers, so the same image gets a different answer each time"
            raise GraphError(what, remedy="Export the model in inference mode, without that part: model.eval()")
        if node.op_type == "Dropout" and len(node.inputs) > 2 and _on(node):
            what = f"{where}: {called(node)} drops values at random also in eval mode"
            raise GraphError(what, remedy="Give functional dropout `training=self.training`, and call model.eval()")


def _on(node: ir.Node) -> bool:
    flag = constant(node.inputs[2])
    ratio = constant(node.inputs[1]) if node.inputs[1] is not None else None
    return flag is not None and bool(flag.any()) and (ratio is None or bool(ratio.any())) and attribute(node, "ratio", 0.5) != 0
