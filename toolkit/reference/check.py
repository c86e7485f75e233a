"""Check: does an exported graph answer as its reference does? If not, which tensor departs first?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.errors import GraphError, WeightsError
from toolkit.graph.fp8 import breaking
from toolkit.images.dataset import Images
from toolkit.onnxfile import serialize
from toolkit.reference.fit import misfit
from toolkit.reference.source import Source
from toolkit.types import Array, Float, Frozen, Target

BATCHES = (1, 3, 8)


class Agreement(Frozen, frozen=True):
    """How near the graph's logits are to the reference's, over all images tried."""

    images: int
    max_abs: float  # largest |difference| of a logit
    cosine: float  # smallest cosine of two logit vectors
    top1: float  # share of equal answers, 0 to 1
    remarks: tuple[str, ...] = ()  # what else the images showed


def check(source: Source, images: Images) -> Agreement:
    """Run both at batch 1, 3 and 8 on the first images of the set. Raises GraphError above the source's tolerance, with the first
    tensor, and WeightsError where the reference itself does not answer in numbers."""
    pictures = np.concatenate(list(images.batches(sum(BATCHES)))[:1])
    graph = onnxruntime.session(serialize(source.graph), Target("cpu"), {"threads": cpu.cores()}, without=breaking(source.graph))
    name, output = source.graph.graph.inputs[0].name, source.graph.graph.outputs[0].name
    ours: list[Float] = []
    theirs: list[Float] = []
    for batch in _cut(pictures):
        ours.append(_run(graph, [output], {name: batch}, len(batch))[0])
        theirs.append(source.reference(batch))
    refuse_broken(source, pictures, np.concatenate(theirs), images.name)
    _refuse_moody(source, pictures[:1], theirs[0])
    _refuse_mixed(source, pictures[1:2], theirs[1:])
    scores = source.reference.manifest.meaning.scores
    found = agreement(scores(np.concatenate(theirs)), scores(np.concatenate(ours)))
    limit = allowed(source, np.concatenate(theirs))
    if not found.max_abs <= limit:
        first = first_departure(source, pictures[:1])
        raise GraphError(
            f"the exported graph differs from the reference by {found.max_abs:.3g} (allowed {limit:.3g}, top-1 agreement "
            f"{found.top1:.1%}); the first tensor that does is '{first}'",
            remedy="Look at that layer's operator in the exported file: toolkit export RECIPE -o model.onnx",
        )
    strange = misfit(source.graph, source.norm, pictures)
    return found if strange is None else msgspec.structs.replace(found, remarks=(strange,))


def allowed(source: Source, answers: Float) -> float:
    """How far the graph's answers may be from the reference's. Probabilities may all be small: no floor of 1 for them, but what a
    softmax makes of a difference that logits would be allowed."""
    peak = float(np.abs(answers).max())
    if "probabilit" in source.reference.manifest.outputs_are:
        return 10 * source.tolerance * peak
    return source.tolerance * max(1.0, peak)


def refuse_broken(source: Source, pictures: Array, logits: Float, name_of: Callable[[int], str]) -> None:
    """Raises WeightsError where the reference itself answers NaN or infinity; it names the image and the tensor."""
    bad = ~np.isfinite(logits).all(axis=1)
    if not bad.any():
        return
    index = int(bad.argmax()) % len(pictures)  # a set that is too small was gone through more than once
    tensors = _reference_tensors(source, pictures[index : index + 1])
    first = next((name for name, values in tensors.items() if not np.isfinite(values).all()), source.graph.graph.outputs[0].name)
    where = f"image {index} ({name_of(index)}); the first tensor with one is '{first}'"
    remedy = "Look at the weights of that layer, or use an earlier checkpoint"
    raise WeightsError(f"the reference itself answers NaN or infinity for {where}", remedy=remedy)


def _refuse_moody(source: Source, image: Array, answer: Float) -> None:
    """Raises GraphError where the reference answers an image otherwise than a moment ago: nothing can be compared with it."""
    apart = float(np.abs(source.reference(image) - answer).max())
    if apart > allowed(source, answer):
        what = f"the reference answers one image differently each time: the second answer was off by {apart:.3g}"
        raise GraphError(what, remedy="Export it in inference mode; look for dropout, random numbers or state in its code")


def _refuse_mixed(source: Source, image: Array, batches: list[Float]) -> None:
    """Raises GraphError where the first image of the first of these batches is answered otherwise alone: by a mean or a softmax
    over the batch, say, an engine's answers would depend on what else is asked at the same time."""
    if not batches or not len(image):
        return
    apart = float(np.abs(source.reference(image) - batches[0][:1]).max())
    if apart > allowed(source, batches[0]):
        what = f"the reference answers an image otherwise where others are in its batch: off by {apart:.3g}"
        raise GraphError(what, remedy="Look for a mean, a norm or a softmax over the first dimension, the batch, in its code")


def agreement(reference: Float, answers: Float) -> Agreement:
    """Two arrays of logits [n, classes] for the same images."""
    a, b = reference.astype(np.float64), answers.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), 1.0)
    return Agreement(
        images=len(a),
        max_abs=float(np.abs(a - b).max()),
        cosine=float(cosine.min()),
        top1=float((a.argmax(1) == b.argmax(1)).mean()),
    )


def first_departure(source: Source, batch: Array) -> str:
    """The first tensor of the graph, in its order, whose values differ from the reference's by more than its tolerance."""
    reference = _reference_tensors(source, batch)
    names = [value.name for node in source.graph.graph for value in node.outputs if value.name and value.name in reference]
    if not names:  # a module whose layers are called otherwise than its tensors
        return str(source.graph.graph.outputs[0].name)
    proto: Any = ir.to_proto(source.graph)
    present = {value.name for value in proto.graph.output}
    for name in names:
        if name not in present:
            proto.graph.output.add().name = name
    live = onnxruntime.session(proto.SerializeToString(), Target("cpu"), {"threads": 1})
    values = live.run(names, {source.graph.graph.inputs[0].name: batch})
    for name, value in zip(names, values, strict=True):
        want = reference[name]
        if value.shape != want.shape or not np.allclose(
            value, want, rtol=0, atol=source.tolerance * max(1.0, float(np.abs(want).max()))
        ):
            return str(name)
    return str(source.graph.graph.outputs[0].name)


def _reference_tensors(source: Source, batch: Array) -> dict[str, Array]:
    """What the PyTorch reference holds, by the names that the graph's tensors have. An ONNX reference tells its logits only."""
    from toolkit.reference.source import torch_module

    module = torch_module(source)
    if module is None:
        return {source.graph.graph.outputs[0].name or "": source.reference(batch)}
    from toolkit.reference.trace import activations

    return activations(module, batch)


def _cut(pictures: Array) -> list[Array]:
    batches, start = [], 0
    for size in BATCHES:
        if start < len(pictures):
            batches.append(np.take(pictures, range(start, start + size), axis=0, mode="wrap"))
        start += size
    return batches


def _run(live: Any, outputs: list[str | None], feeds: dict[str | None, Array], batch: int) -> list[Float]:
    try:
        result: list[Float] = live.run(outputs, feeds)
    except Exception as error:  # ONNX Runtime's own classes, made while it loads
        said = " ".join(str(error).split()).removeprefix("[ONNXRuntimeError] : ")
        said = said if len(said) <= 300 else f"{said[:300].rpartition(' ')[0]} ..."
        remedy = "Let its code take any batch: no loop over the images, no reshape to a fixed number of them"
        raise GraphError(f"the graph does not run at batch {batch}: {said}", remedy=remedy) from error
    if len(result[0]) != batch:
        what = f"the graph answers a batch of {batch} with {len(result[0])} results"
        if batch > 1:
            raise GraphError(f"{what}: its batch is fixed", remedy="Export it with a dynamic batch")
        raise GraphError(f"{what}: its columns are joined to the batch", remedy="Name the tensor before it in `reference.output`")
    return result
