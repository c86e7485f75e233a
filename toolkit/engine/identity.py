"""Identity: how an engine's manifest is filled in when it is built."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import onnx_ir as ir

import toolkit
from toolkit.calibration import Ranges
from toolkit.disk.files import sha256_bytes
from toolkit.engine.locations import portable
from toolkit.harness.verdict import Verdict
from toolkit.manifest import Manifest, Profile
from toolkit.onnxfile import serialize
from toolkit.recipe import Recipe
from toolkit.types import Compiled, Target, TensorSpec


def identity(
    recipe: Recipe,
    target: Target,
    graph: ir.Model,
    compiled: Compiled,
    reference: Manifest,
    ranges: Ranges | None,
    proof: Verdict | None,
) -> Manifest:
    """The manifest of an engine, all but the hash of its file: what the recipe wanted, what it was made of, what `compile` did.

    `graph` is the typed one, `reference` the manifest of what it agrees with, `ranges` those that INT8 was scaled by.
    """
    hashes = {"weights": reference.hashes["weights"], "onnx": sha256_bytes(serialize(graph))}
    if ranges is not None:
        hashes |= {"calibration": ranges.origin.images, "ranges": sha256_bytes(ranges.encode())}
    return Manifest(
        name=recipe.name,
        target=str(target),
        file=compiled.file,
        precision=_precision(recipe, reference),
        inputs=specs(graph.graph.inputs),
        outputs=specs(graph.graph.outputs),
        profiles=tuple(Profile(min=low, opt=best, max=high) for low, best, high in recipe.build.profiles),
        preprocess=recipe.preprocess,
        classes=reference.classes,
        outputs_are=reference.outputs_are,
        threshold=reference.threshold,
        hashes=hashes | compiled.hashes,
        versions={"toolkit": toolkit.__version__, **compiled.versions},
        device=compiled.device,
        settings=compiled.settings,
        recipe=portable(recipe),
        notes=compiled.notes if proof is None else (*compiled.notes, proof.text),
    )


def metadata_of(recipe: Recipe, target: Target, reference: Manifest) -> dict[str, str]:
    """What an app needs beside the tensors, as ONNX metadata: preprocessing and class names as JSON, what the outputs are."""
    found = {
        "name": recipe.name,
        "precision": _precision(recipe, reference),
        "target": str(target),
        "preprocess": msgspec.json.encode(recipe.preprocess).decode(),
        "outputs_are": reference.outputs_are,
        "toolkit": toolkit.__version__,
    }
    if reference.classes is not None:
        found["classes"] = msgspec.json.encode(reference.classes).decode()
    return found


def _precision(recipe: Recipe, reference: Manifest) -> str:
    """A file that was quantized before it came here is called what it is."""
    if reference.precision not in ("int8", "fp8"):
        return precision_of(recipe)
    return f"{reference.precision}+fp16" if recipe.precision.compute == "fp16" else reference.precision


def precision_of(recipe: Recipe) -> str:
    """In the manifest's words: fp32, fp16, bf16, int8 or fp8, or two of them, such as int8+fp16."""
    precision = recipe.precision
    if not precision.quantized:
        return precision.compute
    narrow = "int8" if precision.int8 else "fp8"
    return narrow if precision.compute == "fp32" else f"{narrow}+{precision.compute}"


def specs(values: Sequence[ir.Value]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a graph as the manifest holds them; every precision has float32 ends, or takes uint8 pixels."""
    return tuple(
        TensorSpec(
            name=v.name or "",
            dtype="uint8" if v.dtype == ir.DataType.UINT8 else "float32",
            shape=tuple(d if isinstance(d, int) else "N" for d in v.shape),
        )
        for v in values
        if v.shape is not None
    )
