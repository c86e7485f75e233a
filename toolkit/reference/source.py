"""Source: a recipe's reference in both forms: the FP32 baseline (a Runner) and the FP32 graph that becomes an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import onnx_ir as ir

import toolkit.reference  # noqa: F401  it tells OpenMP how to wait, which torch asks once, when it is first imported
from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.backends.onnxruntime.backend import ForeignExecutor
from toolkit.errors import GraphError
from toolkit.graph.fp8 import breaking
from toolkit.graph.load.labels import labels_note
from toolkit.images.dataset import class_names
from toolkit.manifest import Manifest
from toolkit.onnxfile import serialize
from toolkit.recipe import Recipe
from toolkit.recipe.modules import held
from toolkit.reference.beside import TIMM, names_beside
from toolkit.reference.fit import FirstNorm
from toolkit.reference.names import label_names
from toolkit.runtime.runner import Runner
from toolkit.types import Progress, Target, TensorSpec

if TYPE_CHECKING:
    import torch

    from toolkit.graph.load import Facts


# A file that rounds to float16 or INT8 between its layers is held to what such rounding leaves.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2, "fp8": 5e-2}


class Source(NamedTuple):
    """`reference` answers what the engine has to agree with; `graph` is its FP32 graph, BatchNorm folded, batch `N`.

    `tolerance`: how far the graph may depart from the reference, as a share of the largest logit.
    """

    reference: Runner
    graph: ir.Model
    tolerance: float = 1e-4  # FP32 sums in another order differ by some 1e-6
    norm: FirstNorm | None = None  # what the first BatchNormalization knows of the images it was trained on


def open_source(recipe: Recipe, *, progress: Progress | None = None) -> Source:
    """Load the reference and write its graph. Raises WeightsError, GraphError, DataError (class names)."""
    if recipe.reference.onnx is not None:
        return _open_onnx(recipe, Path(recipe.reference.onnx))
    if recipe.reference.in_memory:
        return _open_module(recipe, held(recipe.reference.weights or ""))
    from toolkit.reference.exports import exported
    from toolkit.reference.runner import reference_runner
    from toolkit.reference.weights import open_weights

    channels, classes = recipe.preprocess.channels, class_names(recipe)
    loaded = open_weights(recipe.reference, channels=channels, classes=len(classes or ()) or 1000, progress=progress)
    graph = exported(loaded.model, recipe.preprocess)
    return Source(reference_runner(loaded.model, recipe, loaded.notes), graph, norm=_norm_of(loaded.model))


def open_reference(recipe: Recipe, threads: int | None = None) -> Runner:
    """Only the reference. Raises WeightsError, GraphError."""
    if recipe.reference.onnx is not None:
        return _open_onnx(recipe, Path(recipe.reference.onnx), threads).reference
    if recipe.reference.in_memory:
        return open_source(recipe).reference
    from toolkit.reference import runner

    return runner.open_reference(recipe, threads)


def _open_module(recipe: Recipe, module: torch.nn.Module) -> Source:
    """A module that `Recipe.of` was given: what its columns are is read off the end of its graph, as of an ONNX file."""
    from toolkit.graph.export import export
    from toolkit.graph.load.meaning import meaning_of
    from toolkit.reference.runner import module_runner

    columns = module_runner(module, recipe).manifest.outputs[0].shape[1]  # first: it says what the module takes and gives
    graph = export(module, recipe.preprocess)
    are = recipe.reference.outputs_are or meaning_of(graph, int(columns), Path(type(module).__name__))
    return Source(module_runner(module, recipe, are), graph, norm=_norm_of(module))


def _open_onnx(recipe: Recipe, path: Path, threads: int | None = None) -> Source:
    """The file itself is the reference, run as it came: passes that went wrong would show."""
    from toolkit.graph.load.apart import load_apart

    graph, facts, original = load_apart(path, recipe.preprocess, recipe.reference)
    if facts.precision in ("int8", "fp8") and recipe.precision.quantized:
        what = f"{path} is quantized already, and the recipe asks for INT8: it would be quantized twice"
        raise GraphError(what, remedy="Leave out `int8` and `fp8` to build it as it is, or give the floating-point file")
    settings = {"threads": threads or cpu.cores()}
    file = str(path) if original is None else serialize(original)
    live = onnxruntime.session(file, Target("cpu"), settings, without=breaking(graph))
    spec = TensorSpec(name=facts.input, dtype="float32", shape=("N", *recipe.preprocess.input_shape))
    columns = TensorSpec(name=facts.output, dtype="float32", shape=("N", facts.columns))
    manifest = Manifest(
        name=f"{recipe.name}-reference",
        target="cpu",
        file=path.name,
        precision=facts.precision,
        inputs=(spec,),
        outputs=(columns,),
        profiles=(),
        preprocess=recipe.preprocess.outside,
        classes=label_names(class_names(recipe), facts.outputs, facts.columns, str(path)),
        outputs_are=facts.outputs.are,
        threshold=facts.outputs.threshold,
        hashes={"onnx": facts.sha256, "weights": facts.sha256},
        device="ONNX Runtime on the CPU",
        recipe=recipe.to_dict(),
        notes=(*facts.notes, *_unused_names(recipe, path, facts)),
    )
    executor = ForeignExecutor(live, facts.input, facts.output, facts.batch, facts.input_type, recipe.reference.offset)
    norm = (
        None if facts.norm is None else FirstNorm(tensor=facts.norm[0], mean=tuple(facts.norm[1]), deviation=tuple(facts.norm[2]))
    )
    return Source(Runner(manifest, executor), graph, TOLERANCES[facts.precision], norm)


def _unused_names(recipe: Recipe, path: Path, facts: Facts) -> tuple[str, ...]:
    """What to say of class names in the file, or in the `config.json` beside it or its folder `onnx`, where nobody gave any."""
    if recipe.reference.classes is not None:
        return ()
    if facts.labels is not None:
        return (facts.labels,)
    said = labels_note(names_beside(path), facts.columns, f"{TIMM} beside the model")
    return () if said is None else (said,)


def _norm_of(model: torch.nn.Module) -> FirstNorm | None:
    """Of a PyTorch ResNet, whose tensors are called after its modules."""
    norm = getattr(model, "bn1", None)
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if norm is None or mean is None or variance is None or (not mean.any() and bool((variance == 1).all())):
        return None
    gamma: Any = norm.weight
    beta: Any = norm.bias
    return FirstNorm(tensor="conv1", mean=tuple(beta.tolist()), deviation=tuple(gamma.abs().tolist()))


def torch_module(source: Source) -> torch.nn.Module | None:
    """The module behind a PyTorch reference; None where the reference is an ONNX file."""
    return getattr(source.reference.executor, "model", None)
