"""Trial: one image of zeros through a graph whose sizes its shapes do not tell, while memory and time are limited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.errors import GraphError
from toolkit.graph.fp8 import BREAKS_FP8
from toolkit.graph.load.output import NO_SCORES
from toolkit.onnxfile import serialize
from toolkit.types import Target

FREE = (
    "Export it with a dynamic batch (torch.onnx.export(..., dynamo=True, dynamic_shapes=({0: torch.export.Dim('batch')},))), and "
    "let its code name no batch size: x.flatten(1), not x.view(1, -1)"
)
AGAIN = "Set `size` to what the network was trained on; if that is it, export the model again"


def trial(model: ir.Model, original: ir.Model | Path, name: str, kind: str, batch: int | None, known: bool, path: Path) -> int:
    """The columns of a graph's answer: from its shape, else from running it. Where not every size is `known` the file itself is
    run too. Raises GraphError."""
    image = model.graph.inputs[0]
    shape = [1, *(int(dim) for dim in image.shape or () if isinstance(dim, int))]
    output = model.graph.outputs[0]
    columns = output.shape[1] if output.shape is not None and len(output.shape) == 2 else None
    if not isinstance(columns, int):
        answer = run(serialize(model), {image.name or "": np.zeros(shape, np.float32)}, output.name or "", path)
        if answer.ndim != 2:
            what = f"output '{output.name}' of {path} has shape {list(answer.shape)}, not [N, classes]"
            raise GraphError(what, remedy=NO_SCORES)
        columns = answer.shape[1]
        output.shape = ir.Shape(["N", columns])
    if batch is not None:
        _same_alone(model, shape, path, batch)
    if not known:
        data = str(original) if isinstance(original, Path) else serialize(original)
        run(data, {name: np.zeros([batch or 1, *shape[1:]], kind)}, None, path)
    return columns


def know_rank(model: ir.Model, path: Path) -> None:
    """Where shapes do not tell how many dimensions the output has, one image of zeros does. In place. Raises GraphError."""
    image, output = model.graph.inputs[0], model.graph.outputs[0]
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    if output.shape is None:
        shape = [1, *(int(dim) for dim in image.shape or () if isinstance(dim, int))]
        answer = run(serialize(model), {image.name or "": np.zeros(shape, np.float32)}, output.name, path)
        output.shape = ir.Shape([None] * answer.ndim)


def takes_batches(model: ir.Model, path: Path) -> bool:
    """Whether images in one batch answer as each does alone, where the batch is called free: an operator may still write 1."""
    output = model.graph.outputs[0]
    if output.shape is not None and not isinstance(output.shape[0], int) and output.shape[0].value == "N":
        return True  # no operator on the way to the output has changed it
    shape = [1, *(int(dim) for dim in model.graph.inputs[0].shape or () if isinstance(dim, int))]
    return not _unlike_alone(model, shape, path)


def _same_alone(model: ir.Model, shape: list[int], path: Path, batch: int) -> None:
    """Images together must answer as each does alone: the batch was written into the file, and was taken out of it."""
    try:
        said = _unlike_alone(model, shape, path)
    except GraphError as error:
        said = error.what
    if said:
        what = f"a batch of {batch} is written into {path}, and cannot be taken out of it: {said}"
        raise GraphError(what, remedy=FREE)


def _unlike_alone(model: ir.Model, shape: list[int], path: Path) -> str:
    """In what way three images in one batch do not answer as each does alone; empty where they do. Raises GraphError where one
    image alone does not run."""
    image, output = model.graph.inputs[0], model.graph.outputs[0]
    three = np.random.default_rng(0).normal(size=[3, *shape[1:]]).astype(np.float32)
    data = serialize(model)
    alone = [run(data, {image.name or "": three[i : i + 1]}, output.name, path) for i in range(3)]
    try:
        together = run(data, {image.name or "": three}, output.name, path)
    except GraphError as error:
        return error.what
    want = np.concatenate(alone)
    near = 1e-4 * float(np.abs(want).max(initial=0))
    same = together.shape == want.shape and np.allclose(together, want, rtol=1e-3, atol=near)
    return "" if same else "images in one batch do not answer as each does alone"


def run(model: bytes | str, feeds: dict[str, Any], output: str | None, path: Path) -> Any:
    try:
        live = onnxruntime.session(model, Target("cpu"), {"threads": 1}, lean=True, without=BREAKS_FP8)
        return live.run([output] if output else None, feeds)[0]
    except Exception as error:  # ONNX Runtime's own classes, made while it loads
        said = str(error).strip().splitlines() or [type(error).__name__]
        count = len(next(iter(feeds.values())))
        images = "one image" if count == 1 else f"{count} images in one batch"
        raise GraphError(f"{path} does not run on {images}: {said[0]}", remedy=AGAIN) from error
