"""Softmax: a network that answers with probabilities, and the same one up to what they are made of."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from toolkit.graph.channels import Real
from toolkit.graph.edit import finish
from toolkit.types import Float


def ends_in_softmax(model: ir.Model) -> bool:
    """Whether the first output is a Softmax over the classes, or its logarithm; a Cast behind it counts for nothing."""
    producer, _ = _last(model)
    return producer is not None and producer.op_type in ("Softmax", "LogSoftmax") and not producer.domain


def _last(model: ir.Model) -> tuple[ir.Node | None, ir.Node | None]:
    """The node that makes the first output, and the Cast that hands it out, as in a graph in half precision."""
    producer = model.graph.outputs[0].producer()
    if producer is None or producer.op_type != "Cast" or producer.inputs[0] is None:
        return producer, None
    return producer.inputs[0].producer(), producer


def before_softmax(model: ir.Model) -> ir.Model:
    """A copy that answers with what its last Softmax reads; the model itself where there is none."""
    if not ends_in_softmax(model):
        return model
    model = model.clone()
    producer, cast = _last(model)
    assert producer is not None and producer.inputs[0] is not None
    if cast is None:
        model.graph.outputs[0] = producer.inputs[0]
    else:
        cast.replace_input_with(0, producer.inputs[0])
    return finish(model)


def centered(answers: Float, soft: bool) -> Real:
    """float64 [n, classes]; less each row's mean where a Softmax, to which it means nothing, comes behind."""
    rows = answers.astype(np.float64).reshape(len(answers), -1)
    return rows - rows.mean(axis=1, keepdims=True) if soft else rows
