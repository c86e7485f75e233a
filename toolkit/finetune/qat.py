"""Quantization-aware fine-tuning, the last resort where no calibration keeps the accuracy.

    toolkit finetune RECIPE -o OUT_DIR [--steps 200] [--weight-bits 8] [--seed 0] [--threads 1]

Weights and ranges learn to give the FP32 reference's answers (distillation: no labels are needed) through the same Q/DQ points
that the recipe's target gets, on the recipe's calibration images. It writes into OUT_DIR:

NAME-qat.safetensors   the weights, under the reference's names (each BatchNorm is the identity plus a bias)
NAME-qat.ranges.json   the learned ranges
NAME-qat.toml          the recipe with both, from which `toolkit build` goes on as ever
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads on shared cores cost several times the work

import msgspec
import numpy as np
import onnx_ir as ir
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from toolkit.calibration import Ranges, TensorRange, collect, origin_of
from toolkit.disk.files import write_atomically
from toolkit.errors import RecipeError
from toolkit.finetune.fakequant import FakeQuant, Point
from toolkit.graph.edges import origin
from toolkit.graph.edit import weight_of
from toolkit.graph.qdq import scheme_of
from toolkit.graph.scheme_cpu import cpu_edges, watched
from toolkit.graph.scheme_tensorrt import tensorrt_edges
from toolkit.pipeline import calibration_images, prepare
from toolkit.recipe import Recipe
from toolkit.recipe.write import recipe_toml
from toolkit.reference.source import open_source
from toolkit.reference.weights import load_reference
from toolkit.types import Float, Progress, Stage, Target, quiet

BATCH = 32
TEMPERATURE = 3.0
METHODS = ("minmax", "entropy", "mse", "percentile-99.9", "percentile-99.99", "percentile-99.999")


def fake_quantized(graph: ir.Model, ranges: Ranges, recipe: Recipe, weight_bits: int = 8) -> FakeQuant:
    """The module whose points are those that `quantize` would give `graph` for the recipe's target."""
    keep, calibration = recipe.precision.keep, recipe.calibration
    symmetric = scheme_of(Target.parse_many(recipe.build.target)[0]) == "tensorrt"
    edges = tensorrt_edges(graph, keep) if symmetric else cpu_edges(graph, keep)
    points = [
        Point(
            edge.value.name or "",
            origin(edge.value).name or "",
            None if edge.readers is None else frozenset(node.name or "" for node in edge.readers),
        )
        for edge in edges
    ]
    levels = 127 if symmetric else 255
    chosen = {p.source: recipe.precision.methods.get(p.source, calibration.method) for p in points}
    found = {name: ranges.range(name, method, calibration.percentile, levels=levels) for name, method in chosen.items()}
    at = {point.tensor: point.readers for point in points}
    rounded = [node.name or "" for node in graph.graph if weight_of(node) is not None and _is_read(node, at)]
    return FakeQuant(graph, points, found, rounded, symmetric=symmetric, weight_bits=weight_bits)


def _is_read(node: ir.Node, at: dict[str, frozenset[str] | None]) -> bool:
    name = node.inputs[0].name if node.inputs[0] is not None else None
    return name in at and ((readers := at[name]) is None or node.name in readers)


def fine_tune(
    model: FakeQuant, images: Float, *, steps: int, seed: int = 0, rate: float = 0.003, progress: Progress | None = None
) -> list[float]:
    """Train in place for `steps` batches of 32; the loss of each step, the divergence from the FP32 graph's answers.

    Both answers are softened by a temperature of 3, so that the lesser classes teach too (Hinton et al., 2015, arXiv:1503.02531).
    Adam, with a rate for each tensor of `rate` times its root mean square, falling along a cosine.
    """
    random = torch.Generator().manual_seed(seed)
    data = torch.from_numpy(images)
    model.active = False
    with torch.no_grad():
        teacher = torch.cat([functional.log_softmax(model(part) / TEMPERATURE, 1) for part in torch.split(data, BATCH)])
    model.active = True
    optimizer = torch.optim.Adam(_groups(model, rate))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    losses: list[float] = []
    order: list[Tensor] = []
    for step in range(steps):
        order = order or list(torch.split(torch.randperm(len(data), generator=random), BATCH))
        index = order.pop()
        answer = functional.log_softmax(model(data[index]) / TEMPERATURE, 1)
        loss = functional.kl_div(answer, teacher[index], reduction="batchmean", log_target=True) * TEMPERATURE**2
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, steps)
    return losses


def _groups(model: FakeQuant, rate: float) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = [{"params": list(model.stretch.values()), "lr": rate}]
    for weight in model.weights.values():
        size = float(weight.detach().square().mean().sqrt())
        groups.append({"params": [weight], "lr": rate * (size or 1.0)})
    return groups


def state_dict(model: FakeQuant, reference: nn.Module) -> dict[str, Tensor]:
    """The trained weights under the names of `reference`; a BatchNorm keeps only its bias, the rest is in the convolution."""
    state = {name: value.clone() for name, value in reference.state_dict().items()}
    norms = {name: module for name, module in reference.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, norm in norms.items():
        state[f"{name}.weight"].fill_(1.0)
        state[f"{name}.running_mean"].zero_()
        state[f"{name}.running_var"].fill_(1.0 - norm.eps)
    for name, (weight, bias) in model.layers().items():
        state[f"{name}.weight"] = weight
        state[f"{name if name == 'fc' else _norm_of(name)}.bias"] = torch.zeros(len(weight)) if bias is None else bias
    return state


def _norm_of(conv: str) -> str:
    """The BatchNorm behind a convolution: layer1.0.conv2 -> layer1.0.bn2, layer2.0.downsample.0 -> layer2.0.downsample.1."""
    head, _, last = conv.rpartition(".")
    return f"{head}.1" if last == "0" else f"{head}.{last}".lstrip(".").replace("conv", "bn")


def learned_ranges(model: FakeQuant, graph: ir.Model, images: Float, progress: Progress | None = None) -> Ranges:
    """Ranges of the trained graph; a tensor whose range was learned has that range by every method."""
    tensors = watched(graph)
    found = collect(graph, [images], tensors, origin=origin_of(graph, tensors), count=len(images), progress=progress)
    changed: dict[str, TensorRange] = dict(found.tensors)
    for source in model.ranges:
        low, high = (float(end.detach()) for end in model.range(source))
        thresholds = dict.fromkeys(METHODS, max(-low, high))
        changed[source] = msgspec.structs.replace(changed[source], min=low, max=high, thresholds=thresholds)
    note = "min, max and thresholds were learned in quantization-aware fine-tuning"
    return msgspec.structs.replace(found, tensors=changed, notes=(*found.notes, note))


def finetune(
    recipe: Recipe,
    out: Path,
    *,
    steps: int = 200,
    weight_bits: int = 8,
    images: int = 2048,
    seed: int = 0,
    threads: int = 1,
    stage: Stage = quiet,
) -> Recipe:
    """Fine-tune on at most `images` of the calibration images; gives back the recipe that it wrote into `out`.

    `threads` are torch's: more help where the network is large and the cores are free. Raises RecipeError.
    """
    torch.set_num_threads(threads)
    if recipe.reference.arch is None or not recipe.precision.int8:
        raise RecipeError("fine-tuning needs a PyTorch reference (`arch`) and `int8 = true`")
    out.mkdir(parents=True, exist_ok=True)  # before the work, should it not be possible
    torch.manual_seed(seed)
    trip = prepare(recipe, stage, proof=False)
    recipe = trip.recipe  # with the settings that it left open
    assert trip.ranges is not None
    model = fake_quantized(trip.graph, trip.ranges, recipe, weight_bits)
    pictures = np.concatenate(list(calibration_images(recipe, images).batches(BATCH)))
    fine_tune(model, pictures, steps=steps, seed=seed, progress=stage(f"fine-tune for {steps} steps"))
    name = f"{recipe.name}-qat"
    weights, ranges = out / f"{name}.safetensors", out / f"{name}.ranges.json"
    _save(model, recipe, weights, seed)
    tuned = msgspec.structs.replace(
        recipe,
        name=name,
        reference=msgspec.structs.replace(recipe.reference, weights=str(weights)),
        precision=msgspec.structs.replace(recipe.precision, equalize="none"),
        calibration=msgspec.structs.replace(recipe.calibration, ranges=str(ranges)),
    )
    progress = stage("calibrate the tuned graph")
    learned_ranges(model, open_source(tuned).graph, pictures[: recipe.calibration.images], progress).write(ranges)
    write_atomically(out / f"{name}.toml", recipe_toml(tuned, out).encode())
    return tuned


def _save(model: FakeQuant, recipe: Recipe, path: Path, seed: int) -> None:
    reference = load_reference(recipe.reference, channels=recipe.preprocess.channels)
    metadata = {**reference.metadata, "seed": str(seed)}
    write_atomically(path, save({key: value.contiguous() for key, value in state_dict(model, reference).items()}, metadata))
