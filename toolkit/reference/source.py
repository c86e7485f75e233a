"""Source: a recipe's reference in both its forms, the Runner that is the truth and the FP32 graph that becomes an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir

import toolkit.reference  # noqa: F401  it tells OpenMP how to wait, which torch asks once, when it is first imported
from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.errors import GraphError
from toolkit.files import sha256
from toolkit.images.dataset import class_names
from toolkit.manifest import Manifest
from toolkit.recipe import Recipe
from toolkit.runtime.runner import Runner
from toolkit.types import Progress, Target, TensorSpec

if TYPE_CHECKING:
    import torch


class Source(NamedTuple):
    """`reference` answers what the engine has to agree with; `graph` is its FP32 graph, BatchNorm folded, batch `N`."""

    reference: Runner
    graph: ir.Model


def open_source(recipe: Recipe, *, progress: Progress | None = None) -> Source:
    """Load the reference and write its graph. Raises WeightsError, GraphError, DataError (class names)."""
    if recipe.reference.onnx is not None:
        return _open_onnx(recipe, Path(recipe.reference.onnx))
    from toolkit.graph.export import export
    from toolkit.reference.runner import reference_runner
    from toolkit.reference.weights import open_weights

    channels, classes = recipe.preprocess.channels, class_names(recipe)
    loaded = open_weights(recipe.reference, channels=channels, classes=len(classes or ()) or 1000, progress=progress)
    return Source(reference_runner(loaded.model, recipe, loaded.notes), export(loaded.model, recipe.preprocess))


def open_reference(recipe: Recipe, threads: int | None = None) -> Runner:
    """Only the reference. Raises WeightsError, GraphError."""
    if recipe.reference.onnx is not None:
        return _open_onnx(recipe, Path(recipe.reference.onnx), threads).reference
    from toolkit.reference import runner

    return runner.open_reference(recipe, threads)


def _open_onnx(recipe: Recipe, path: Path, threads: int | None = None) -> Source:
    """The file itself is the reference, run as it came: passes that went wrong would show."""
    from toolkit.graph.load import load

    graph = load(path, recipe.preprocess, recipe.reference.output)
    live = onnxruntime.session(str(path), Target("cpu"), {"threads": threads or cpu.cores()})
    name = recipe.reference.output or live.get_outputs()[0].name
    batch = live.get_inputs()[0].shape[0]
    manifest = Manifest(
        name=f"{recipe.name}-reference",
        target="cpu",
        file=path.name,
        precision="fp32",
        inputs=(TensorSpec(name=live.get_inputs()[0].name, dtype="float32", shape=("N", *recipe.preprocess.input_shape)),),
        outputs=(TensorSpec(name=name, dtype="float32", shape=("N", _classes(graph, path))),),
        profiles=(),
        preprocess=recipe.preprocess,
        classes=class_names(recipe),
        hashes={"onnx": sha256(path), "weights": sha256(path)},
        device="ONNX Runtime on the CPU",
        recipe=recipe.to_dict(),
    )
    executor = onnxruntime.ForeignExecutor(live, live.get_inputs()[0].name, name, batch if isinstance(batch, int) else None)
    return Source(Runner(manifest, executor), graph)


def _classes(graph: ir.Model, path: Path) -> int:
    shape = graph.graph.outputs[0].shape
    if shape is None or len(shape) != 2 or not isinstance(shape[1], int):
        raise GraphError(f"output '{graph.graph.outputs[0].name}' of {path} has shape {shape}, not [N, classes]")
    return shape[1]


def torch_module(source: Source) -> torch.nn.Module | None:
    """The module behind a PyTorch reference; None where the reference is an ONNX file."""
    return getattr(source.reference.executor, "model", None)
