"""The trip of a foreign ONNX file, in the order that it is made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, NameFixPass, RemoveInitializersFromInputsPass, ShapeInferencePass

from toolkit.errors import GraphError, ToolkitError
from toolkit.graph.edit import finish
from toolkit.graph.fold import fold
from toolkit.graph.fp8 import holds_fp8
from toolkit.graph.load.batch import free_batch, set_image
from toolkit.graph.load.budget import check_budget
from toolkit.graph.load.constants import fold_constants
from toolkit.graph.load.first import first_norm
from toolkit.graph.load.inputs import fit_input, select_input
from toolkit.graph.load.labels import labels_note, texts_of
from toolkit.graph.load.linear import to_standard
from toolkit.graph.load.meaning import meaning_of
from toolkit.graph.load.operators import quantized, refuse_control, refuse_foreign
from toolkit.graph.load.opset import to_opset
from toolkit.graph.load.output import cut_offset, flatten, select_output
from toolkit.graph.load.randomness import refuse_randomness
from toolkit.graph.load.read import read
from toolkit.graph.load.share import unshare
from toolkit.graph.load.training import to_inference
from toolkit.graph.load.trial import know_rank, run, takes_batches, trial
from toolkit.graph.load.widths import float_output, to_float32, unfit_for_cpu
from toolkit.graph.origin import forget_origin
from toolkit.onnxfile import serialize
from toolkit.outputs import Outputs
from toolkit.recipe import Preprocess, Reference
from toolkit.types import Frozen

WIDENED = "the reference runs in float32 too: ONNX Runtime's CPU cannot run the file as it is"
OPEN = 224  # what an open height or width is tried with
CONTROL = ("If", "Loop", "Scan")
MOST_NESTED = 8  # conditions that depend on each other


class Facts(Frozen, frozen=True):
    """What a file is, beside its graph."""

    input: str  # the image's name in the file
    input_type: str  # numpy's word: float32, float16, uint8
    batch: int | None  # written into the file
    output: str  # the name of the scores in the file
    columns: int
    outputs: Outputs
    precision: str  # fp32 | fp16 | int8 | fp8: what the file itself computes in
    sha256: str
    notes: tuple[str, ...] = ()
    norm: tuple[str, list[float], list[float]] | None = None  # see `first.py`
    labels: str | None = None  # what to say of class names in the file


class LoadedGraph(NamedTuple):
    """`graph`: FP32, batch `N`, scores [N, columns]. `original`: the file as ONNX Runtime is to run it where that is not the file
    as it is on disk: an inner tensor as its output, an input fed, training mode off."""

    graph: ir.Model
    facts: Facts
    original: ir.Model | None


def load(
    path: Path, preprocess: Preprocess, reference: Reference | None = None, sized: Callable[[int], None] = lambda size: None
) -> LoadedGraph:
    """An FP32 graph, `preprocess.input_shape` in, scores [N, classes] out. Raises GraphError.

    `sized` is told how many bytes the file has, external data included, before they are read. For a file from outside see
    `apart.py`, which runs this with limits on memory and time.
    """
    reference = reference or Reference(onnx=str(path))
    with _foreign(path):
        model, digest, stored = read(path, sized)
        texts = texts_of(model)
        InlinePass()(model)
        RemoveInitializersFromInputsPass()(model)
        notes, largest = _choose_ends(model, reference, path)
        has_control = any(node.op_type in CONTROL for node in model.graph)
        notes += to_inference(model, path)
        original = model.clone() if notes else None
        to_standard(model)
        refuse_foreign(model, path)
        image, output = model.graph.inputs[0], model.graph.outputs[0].name or ""
        kind = "float32" if image.dtype is None else image.dtype.numpy().name
        name, batch = image.name or "", fit_input(model, preprocess, path)
        integer, wide = quantized(model, path), to_float32(model)
        if unfit_for_cpu(model, wide):
            original, kind, notes = model.clone(), "float32", [*notes, WIDENED]
        set_image(model, preprocess, batch)
        plain = _plain(model, path, stored)
        model, norm, written = _freed(plain, preprocess, batch, path, reference.offset)
        known = check_budget(model, path) and not has_control  # ONNX Runtime looks into branches that are never taken
        columns = trial(model, original or path, name, kind, written, known, path)
        outputs = _outputs(model, columns, reference, path, largest)
        assumed = [outputs.assumption] if reference.outputs_are is None and outputs.assumption else []
        facts = Facts(
            input=name, input_type=kind, batch=written, output=output, columns=columns, sha256=digest,
            outputs=outputs, precision=_precision(model, integer, wide),
            notes=(*notes, *assumed, *_remarks(integer, _precision(model, integer, wide), wide, written, kind)), norm=norm,
            labels=labels_note(texts, columns),
        )  # fmt: skip
        return LoadedGraph(model, facts, original)


def _choose_ends(model: ir.Model, reference: Reference, path: Path) -> tuple[list[str], bool]:
    """The image and the scores are chosen, and what these do not need goes. What was chosen and left out, in words; and whether
    the file answers with the largest of the scores. In place."""
    whole = len(model.graph)
    chosen, largest = select_output(model, reference, path)
    notes = [*chosen, *select_input(model, reference, path)]
    finish_names(model)
    drop_unused(model)
    if not notes and (spare := whole - len(model.graph)):  # ONNX Runtime would run them, and nothing here looks at them
        notes.append(f"operators that no output needs are left out, of the reference too: {spare}")
    return notes, largest


def as_it_stands(path: Path, sized: Callable[[int], None] = lambda size: None) -> tuple[ir.Model, str]:
    """The graph of a file, nothing changed, every node with a name and every shape that can be inferred; and why it does not run
    on one image, empty where it does: what does not run here, where memory and time are limited, is not to be run elsewhere.

    Raises GraphError.
    """
    with _foreign(path):
        model = read(path, sized).model
        NameFixPass()(model)
        ShapeInferencePass()(model)
        for index, node in enumerate(model.graph):
            node.name = node.name or f"{node.op_type}_{index}"
        check_budget(model, path)
        image = model.graph.inputs[0]
        shape = [dim if isinstance(dim, int) else OPEN if axis else 1 for axis, dim in enumerate(image.shape or ())]
        kind = image.dtype.numpy() if image.dtype is not None else np.float32
        try:
            run(serialize(model), {image.name or "": np.zeros(shape, kind)}, None, path)
        except GraphError as error:
            return model, error.what
        return model, ""


def _plain(model: ir.Model, path: Path, stored: int) -> ir.Model:
    """No constant left to compute, opset 18 or later, no control flow."""
    has_control = any(node.op_type in CONTROL for node in model.graph)
    for _ in range(MOST_NESTED if has_control else 0):  # before the converter, which does not look into branches
        fold_constants(model, path, stored)
        if not any(node.op_type == "If" for node in model.graph):
            break
    refuse_control(model, path)
    model = to_opset(model, path)
    fold_constants(model, path, stored)
    refuse_control(model, path)
    drop_unused(model)
    refuse_randomness(model, str(path))
    finish_names(model)
    return model


def _freed(
    plain: ir.Model, preprocess: Preprocess, batch: int | None, path: Path, offset: int
) -> tuple[ir.Model, tuple[str, list[float], list[float]] | None, int | None]:
    """The graph with a free batch and its scores at the end; its first norm; and the batch that was written into it: a file may
    call its batch free while an operator inside writes 1."""
    model = plain.clone() if batch is None else plain
    free_batch(model, preprocess, batch)
    norm = first_norm(model)
    model = _with_scores(model, path, offset)
    if batch is None and not takes_batches(model, path):
        return _freed(plain, preprocess, 1, path, offset)
    return model, norm, batch


def _with_scores(model: ir.Model, path: Path, offset: int) -> ir.Model:
    """Every layer with weights of its own, and [N, classes] of float32 at the end."""
    unshare(model)
    know_rank(model, path)
    finish(model)
    float_output(model)
    if flatten(model, path):
        finish(model)
    cut_offset(model, offset, path)
    forget_origin(model)
    return fold(model)


def finish_names(model: ir.Model) -> None:
    """Every node and every tensor has a name, and no two the same."""
    NameFixPass()(model)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"


def drop_unused(model: ir.Model) -> None:
    """What the chosen output does not depend on goes, and with it whatever it might have refused."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def _outputs(model: ir.Model, columns: int, reference: Reference, path: Path, largest: bool) -> Outputs:
    are = reference.outputs_are or meaning_of(model, columns, path, largest)
    outputs = Outputs(are=are, threshold=reference.threshold)
    if outputs.binary and columns != 1:
        raise GraphError(f"`reference.outputs_are` is {are}, which has one column; {path} gives {columns}")
    if columns == 1 and not outputs.binary and not outputs.multilabel:
        raise GraphError(
            f"`reference.outputs_are` is {are}, and {path} gives a single column", remedy="Use binary-logit or binary-probability"
        )
    return outputs


def _precision(model: ir.Model, integer: str | None, wide: tuple[str, ...]) -> str:
    """What the file computes in."""
    if integer:
        return "fp8" if holds_fp8(model) else "int8"
    return "fp16" if _half(wide) else "fp32"


def _half(wide: tuple[str, ...]) -> bool:
    return "float16" in wide


def _remarks(integer: str | None, precision: str, wide: tuple[str, ...], batch: int | None, kind: str) -> Iterator[str]:
    if integer:
        yield f"the file is quantized already ({integer}): it is built as it is, which is {precision.upper()}"
    if wide:
        yield f"the file computes in {' and '.join(wide)}; its graph holds the same values in float32"
    if kind not in ("float32", "float16", "bfloat16", "float64"):
        yield f"the file takes {kind} pixels; the engine takes the same values as float32"
    if batch is not None:
        yield f"a batch of {batch} is written into the file; the engine takes any"


@contextmanager
def _foreign(path: Path) -> Iterator[None]:
    """Whatever a library raises over a foreign file is a refusal of that file."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        yield
    except (ToolkitError, MemoryError):
        raise
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        said = (str(root).strip().splitlines() or [type(root).__name__])[0]
        raise GraphError(
            f"{path} cannot be made a graph: {said}", remedy="Export the model again, with a newer exporter"
        ) from error
