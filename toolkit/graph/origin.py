"""Origin: who wrote a graph, with what and where. Nothing of it stays in an engine: exporters write the paths of source files.

Producer, domain, comments and metadata of all of its parts go, and its name.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

NAME = "classifier"


def forget_origin(model: ir.Model) -> None:
    """In place. What the graph computes, and the names of its nodes and tensors, stay."""
    ClearMetadataAndDocStringPass()(model)  # of nodes
    model.producer_name, model.producer_version, model.domain, model.doc_string = "resnet-deploy", None, None, None
    model.graph.name, model.graph.doc_string = NAME, None
    for props in (model.metadata_props, model.graph.metadata_props):
        props.clear()
    for attribute in (attribute for node in model.graph for attribute in node.attributes.values()):
        attribute.doc_string = None
    for value in _values(model.graph):
        value.doc_string = None
        value.metadata_props.clear()
        tensor = value.const_value
        if tensor is not None and (tensor.doc_string or tensor.metadata_props):
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from (*graph.inputs, *graph.initializers.values())
    for node in graph:
        yield from node.outputs
