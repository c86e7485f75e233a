"""why: where an engine loses its accuracy, and what wins it back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from toolkit.backends.onnxruntime import profile as onnxruntime_profile
from toolkit.engine.judge import answering
from toolkit.errors import BudgetError, ToolkitError
from toolkit.graph.run import graph_runner
from toolkit.graph.softmax import before_softmax, ends_in_softmax
from toolkit.harness.answers import snr
from toolkit.recipe.write import recipe_toml
from toolkit.types import ON_CPU, Float, Stage, quiet
from toolkit.why import analysis
from toolkit.why.alone import alone
from toolkit.why.blocks import PairedLayer, blocks
from toolkit.why.probe import Powers, probe
from toolkit.why.remedies import WORTH
from toolkit.why.result import LayerLoss, Remedy, Why, Worst
from toolkit.why.subject import Subject, open_subject
from toolkit.why.trials import agreement, tried

__all__ = ["LayerLoss", "Remedy", "Why", "Worst", "remedied", "why"]
FEW = 4  # images on which each layer is tried alone
SOFT = (
    "the network ends in a Softmax: layers and remedies are compared by what that reads, as probabilities of images that it is "
    "sure of tell nothing"
)


def why(engine: str | Path, *, data: str | None = None, remedies: bool = True, stage: Stage = quiet) -> Why:
    """Where the engine loses accuracy against its FP32 network, layer by layer, and remedies that a run has checked.

    `data`: images in place of the recipe's own (see `open_data`). Raises EngineError where there is nothing to ask of, DataError.
    """
    subject = open_subject(Path(engine), data, stage)
    plain = before_softmax(subject.plain)
    parts = blocks(plain, subject.typed)
    powers = probe(plain, subject.typed, parts, subject.images, stage(f"noise of {len(parts)} layers"))
    few = subject.images[:FEW]
    noise, signal = alone(plain, parts, few, stage("what each layer alone costs the logits"))
    layers = analysis.losses(plain, parts, powers, noise, signal, _times(subject, parts), lambda index: subject.names[index])
    found: list[Remedy] = []
    notes = list(subject.notes)
    if remedies and subject.trip is not None:
        found, more = tried(subject, subject.trip, layers, stage)
        found = [_as_built(subject, remedy) for remedy in found]
        notes += more
    return _why(subject, parts, layers, powers, found, notes)


def _as_built(subject: Subject, remedy: Remedy) -> Remedy:
    """With preprocessing where the engine has it."""
    recipe = msgspec.structs.replace(remedy.recipe, preprocess=subject.engine.recipe.preprocess)
    return msgspec.structs.replace(remedy, recipe=recipe)


def remedied(found: Why, folder: Path) -> str:
    """The recipe of the first remedy as TOML, to be written into `folder`, with the evidence in its notes. Raises BudgetError."""
    if not found.remedies:
        tried = f"none of {len(found.tried)} remedies gains {WORTH} dB or more" if found.tried else "no remedy could be tried"
        raise BudgetError(f"there is nothing to write: {tried}", remedy="Fine-tune instead: toolkit finetune RECIPE -o DIR")
    best = found.remedies[0]
    before, after = best.snr
    where = " before the Softmax" if found.softmax else ""
    note = f"toolkit why: {best.what}: {before:.1f} -> {after:.1f} dB{where} on {found.proof_images} images; {best.why}"
    name = best.recipe.name if best.recipe.name.endswith("-why") else f"{best.recipe.name}-why"
    return recipe_toml(msgspec.structs.replace(best.recipe, name=name, notes=(*best.recipe.notes, note)), folder)


def _why(
    subject: Subject,
    parts: list[PairedLayer],
    layers: tuple[LayerLoss, ...],
    powers: dict[str, Powers],
    found: list[Remedy],
    notes: list[str],
) -> Why:
    batch = np.concatenate(subject.images)
    truth = _answers(graph_runner(subject.plain), batch)
    with answering(subject.engine) as (runner, how):
        answers = _answers(runner, subject.taken)
    near, last = snr(truth, answers), powers[parts[-1].name]
    ends = last["signal"].sum(axis=1), last["noise"].sum(axis=1)
    return Why(
        engine=subject.manifest.name,
        target=subject.manifest.target,
        precision=subject.manifest.precision,
        images=len(batch),
        snr=near,
        emulated=analysis.decibels(float(ends[0].sum()), float(ends[1].sum())) or 120.0,
        agreement=agreement(truth, answers, subject.manifest.meaning),
        softmax=ends_in_softmax(subject.plain),
        layers=layers,
        edges=analysis.edges(parts),
        worst_images=analysis.worst(*ends, lambda index: subject.names[index]),
        remedies=tuple(remedy for remedy in found if remedy.gain >= WORTH),
        tried=tuple(remedy for remedy in found if remedy.gain < WORTH),
        proof_images=len(subject.proof),
        notes=(*notes, *_which(subject, near, found), *_remarks(subject, parts, layers, how)),
    )


def _which(subject: Subject, near: float, found: list[Remedy]) -> list[str]:
    """The engine's SNR is told twice, on different images: why the two differ."""
    if not found:
        return []
    before = f"on the {len(subject.proof)} images that remedies are checked on it has {found[0].snr[0]:.1f} dB"
    if ends_in_softmax(subject.plain):
        return [f"{SOFT}: {before}"]
    return [f"{near:.1f} dB is the engine's SNR on the {len(subject.images)} images analyzed; {before}"]


def _remarks(subject: Subject, parts: list[PairedLayer], layers: tuple[LayerLoss, ...], how: str) -> list[str]:
    """The provenance of the answers, and what a CPU does not show."""
    remarks = [] if how == "measured" else [how]
    if subject.manifest.target in ON_CPU and any(block.precision in ("fp16", "bf16") for block in parts):
        remarks.append("ONNX Runtime's CPU computes FP16 in FP32: the losses shown are those of a GPU, which rounds each result")
    mixed = [layer.name for layer in layers if layer.precision != "fp32" and layer.alone is None and layer.born is not None]
    if mixed:
        which = mixed[0] if len(mixed) == 1 else f"{mixed[0]} and {len(mixed) - 1} more"
        remarks.append(f"what is lost at the logits is not known of {which}: an axis there holds images and something else")
    return remarks


def _times(subject: Subject, parts: list[PairedLayer]) -> dict[str, float]:
    """Shares of the time by layer, where ONNX Runtime runs the engine on this CPU."""
    if subject.manifest.target != "cpu":
        return {}
    try:
        profile = onnxruntime_profile.profile(subject.engine.contents, subject.manifest)
    except ToolkitError:
        return {}
    return analysis.times_of(parts, {layer.name: layer.milliseconds for layer in profile.layers})


def _answers(runner: object, batch: Float) -> Float:
    run = runner
    assert callable(run)
    return np.concatenate([run(np.ascontiguousarray(batch[i : i + 8])) for i in range(0, len(batch), 8)])
