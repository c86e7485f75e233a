"""Bring your own ONNX: an image classifier that another tool exported -> the same kind of graph that `export` makes.

1. The file is parsed and checked, and brought to opset 18 where it is older.
2. One output stays: the logits. Constants are folded; initializers are no inputs; every node has a name.
3. The batch dimension becomes `N`. A Reshape that has the exported batch written into it copies the dimension instead.
4. A result of [N, classes, 1, 1] is flattened. BatchNorm and the rest are folded as in `fold`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    RemoveInitializersFromInputsPass,
)

from toolkit.errors import GraphError
from toolkit.graph.edit import attribute, constant, finish, initializer, make
from toolkit.graph.fold import fold
from toolkit.recipe import Preprocess

OPSET = 18
FOLD_LIMIT = 1 << 28  # values; weights that a tool wrote as computed constants must become constants


def load(path: Path, preprocess: Preprocess, output: str | None = None) -> ir.Model:
    """An FP32 graph, `preprocess.input_shape` in, logits [N, classes] out. Raises GraphError."""
    proto = _read(path)
    proto = _at_opset(proto, path)
    model = ir.from_proto(proto)
    InlinePass()(model)
    RemoveInitializersFromInputsPass()(model)
    _select_output(model, output, path)
    batch = _check_input(model, preprocess, path)
    _set_shape(model, preprocess, batch)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    NameFixPass()(model)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"
    model = _fold_constants(finish(model))
    _flatten_output(model)
    ClearMetadataAndDocStringPass()(model)
    return fold(model)


def _read(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except FileNotFoundError:
        raise GraphError(f"there is no file {path}", remedy="Check `reference.onnx` in the recipe") from None
    except (OSError, DecodeError, UnicodeDecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise GraphError(
            f"{path} is not a valid ONNX file: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    return proto


def _at_opset(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    found = next((opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")), 0)
    if found >= OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OPSET)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        raise GraphError(
            f"{path} has opset {found}, and it cannot be brought to opset {OPSET}: {str(error).splitlines()[0]}",
            remedy=f"Export it anew with opset {OPSET} or later",
        ) from error


def _select_output(model: ir.Model, wanted: str | None, path: Path) -> None:
    outputs = list(model.graph.outputs)
    names = ", ".join(str(value.name) for value in outputs)
    if wanted is None and len(outputs) > 1:
        raise GraphError(f"{path} has {len(outputs)} outputs: {names}", remedy="Say which holds the logits: `reference.output`")
    chosen = outputs[0] if wanted is None else next((value for value in outputs if value.name == wanted), None)
    if chosen is None:
        raise GraphError(f"{path} has no output '{wanted}'", remedy=f"Its outputs are {names}")
    model.graph.outputs.clear()
    model.graph.outputs.append(chosen)


def _check_input(model: ir.Model, preprocess: Preprocess, path: Path) -> int | None:
    """The batch that the file has fixed, if any. Raises GraphError where the recipe's preprocessing does not fit the input."""
    inputs = model.graph.inputs
    if len(inputs) != 1:
        raise GraphError(
            f"{path} has {len(inputs)} inputs; an image classifier has one: {', '.join(str(v.name) for v in inputs)}"
        )
    value = inputs[0]
    if value.dtype != ir.DataType.FLOAT:
        raise GraphError(f"input '{value.name}' of {path} is {value.dtype}, not float32", remedy="Export it with a float32 input")
    if value.shape is None or len(value.shape) != 4:
        raise GraphError(f"input '{value.name}' of {path} has shape {value.shape}, not four dimensions")
    found = list(value.shape)[1:]
    want = preprocess.input_shape
    if any(isinstance(have, int) and have != need for have, need in zip(found, want, strict=True)):
        shown = [dim if isinstance(dim, int) else "?" for dim in found]
        raise GraphError(
            f"input '{value.name}' of {path} takes {shown} an image, the recipe's [preprocess] makes {list(want)}",
            remedy="Set `size`, `color` and `layout` (NCHW or NHWC) to fit",
        )
    batch: Any = value.shape[0]
    return batch if isinstance(batch, int) else None


def _set_shape(model: ir.Model, preprocess: Preprocess, batch: int | None) -> None:
    """Rule 3; a height or width that the file leaves open is the recipe's."""
    graph = model.graph
    value = graph.inputs[0]
    value.shape = ir.Shape(["N", *preprocess.input_shape])
    for node in graph:
        for output in node.outputs:
            output.shape = None
    graph.outputs[0].shape = None
    for node in list(graph):
        shape = constant(node.inputs[1]) if node.op_type == "Reshape" and not node.domain else None
        if shape is None or batch is None or shape.size < 2 or shape[0] != batch or (batch == 1 and _is_weight_reshape(node)):
            continue
        node.replace_input_with(1, initializer(graph, f"{node.name}.shape", np.array([0, *shape[1:]], np.int64)))


def _is_weight_reshape(node: ir.Node) -> bool:
    return constant(node.inputs[0]) is not None


def _fold_constants(model: ir.Model) -> ir.Model:
    """Rule 2. The library leaves ConstantOfShape alone, which some tools write weights with."""
    from onnxscript import optimizer

    for node in list(model.graph):
        shape = constant(node.inputs[0]) if node.op_type == "ConstantOfShape" and not node.domain else None
        if shape is not None:
            value = attribute(node, "value", None)
            fill = np.zeros(1, np.float32) if value is None else value.numpy()
            array = initializer(model.graph, node.outputs[0].name or "", np.full(shape, fill[0], fill.dtype))
            ir.convenience.replace_all_uses_with(node.outputs[0], array)
    optimizer.fold_constants(model, input_size_limit=FOLD_LIMIT, output_size_limit=FOLD_LIMIT)
    return finish(model)


def _flatten_output(model: ir.Model) -> None:
    """Rule 4."""
    output = model.graph.outputs[0]
    if output.shape is None or len(output.shape) <= 2:
        return
    name, output.name = output.name, f"{output.name}.unflattened"
    node = make("Flatten", [output], f"{name}.flatten", output=name, axis=1)
    node.outputs[0].type = output.type
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    finish(model)
