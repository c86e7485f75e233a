"""PyTorch -> Graph, through torch's own exporter. Nodes and tensors then bear the names of the modules they came from."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
import warnings
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from toolkit.errors import GraphError
from toolkit.graph.edit import finish
from toolkit.graph.fold import fold
from toolkit.graph.load.randomness import refuse_randomness
from toolkit.graph.origin import forget_origin
from toolkit.recipe import Preprocess

OPSET = 18
SCOPES = "pkg.torch.onnx.name_scopes"


def export(model: nn.Module, preprocess: Preprocess) -> ir.Model:
    """An FP32 graph: `input` [N, C, H, W] -> `logits` [N, classes], any N from 1 up, BatchNorm folded.

    A convolution is called after its module (`layer1.0.conv1`), other nodes after the module they stand in and their
    operator (`layer1.0.add`); a node's output has the node's name. Raises GraphError where torch cannot export.
    """
    model = model.eval()
    example = torch.zeros(2, *preprocess.input_shape)
    try:
        program = _quietly_export(model, example)
    except Exception as error:  # torch raises whatever a step of its trace raised, and wraps even Ctrl-C
        if any(isinstance(one, KeyboardInterrupt) for one in _chain(error)):
            raise KeyboardInterrupt from error
        what, remedy = _said(error)
        raise GraphError(f"torch cannot export the module {type(model).__name__}: {what}", remedy=remedy) from error
    graph = program.model
    _name_after_modules(graph, {name for name, module in model.named_modules() if name and not list(module.children())})
    forget_origin(graph)
    refuse_randomness(graph, f"the module {type(model).__name__}")
    return fold(finish(graph))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _said(error: BaseException) -> tuple[str, str]:
    """What torch says of the first cause, in one line without its colors, and the line of the user's module; and a remedy."""
    *_, root = _chain(error)
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(root)).strip()
    line = (text.splitlines() or [type(root).__name__])[0].strip()
    line = line if len(line) <= 300 else f"{line[:300].rpartition(' ')[0]} ..."
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [frame for one in _chain(error) for frame in traceback.extract_tb(one.__traceback__)]
    theirs = [frame for frame in frames if not frame.filename.startswith((*ours, "<"))]
    here = next((frame for frame in reversed(theirs) if frame.name == "forward"), None)
    where = f" ({here.filename}, line {here.lineno}, in forward)" if here is not None else ""
    if "data-dependent" in text:
        return f"{line}{where}", "Its control flow may not depend on the values of an image: replace such an `if` by torch.where"
    return f"{line}{where}", "Change what torch.export cannot follow, or export the module to ONNX yourself and give that file"


def _quietly_export(model: nn.Module, example: torch.Tensor) -> torch.onnx.ONNXProgram:
    """torch's exporter, without its progress lines and its warnings about packages that are not needed."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # its loggers print whole graphs of what they could not follow
    quiet = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
                input_names=["input"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logging.disable(disabled)
    assert program is not None
    return program


def _name_after_modules(model: ir.Model, leaves: set[str]) -> None:
    """`leaves` are the modules without children: a node of one has its name, a node of a block adds its operator."""
    taken = {value.name or "" for value in (*model.graph.inputs, *model.graph.initializers.values())}
    for node in model.graph:
        weight = node.inputs[1].name or "" if node.op_type in ("Conv", "Gemm") and node.inputs[1] is not None else ""
        scope = literal_eval(node.metadata_props.get(SCOPES, "['', '']"))[-2]
        if weight.endswith(".weight"):
            name = weight.removesuffix(".weight")
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                node.inputs[2].name = f"{name}.bias"
        elif scope in leaves:
            name = scope
        else:
            name = f"{scope}.{node.op_type.lower()}" if scope else node.op_type.lower()
        node.name = _free(name, taken)
        taken.add(node.name)
        for index, output in enumerate(node.outputs):
            if not output.is_graph_output():
                output.name = node.name if index == 0 else f"{node.name}.{index}"


def _free(name: str, taken: set[str]) -> str:
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free
