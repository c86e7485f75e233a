"""Engines that were built, held against the reference they came from: accuracy, and a bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from toolkit import cpu
from toolkit.backends.onnxruntime import profile as onnxruntime_profile
from toolkit.engine.engine import load
from toolkit.errors import BackendError, DataError, DeviceError, EngineError, MeasurementError
from toolkit.files import sha256
from toolkit.graph.product import LAYERS, chain
from toolkit.graph.run import load_graph, predicting_runner
from toolkit.harness.accuracy import accuracy, compare_accuracy
from toolkit.harness.latency import Plan
from toolkit.harness.measurement import Scenario
from toolkit.harness.results import Results
from toolkit.harness.run import run_bench
from toolkit.harness.verdict import Verdict
from toolkit.harness.yardstick import Handoff
from toolkit.insight import explain
from toolkit.manifest import Manifest
from toolkit.pipeline import GRAPH, Stage, proof_images, quiet
from toolkit.recipe import Recipe
from toolkit.reference.source import open_reference
from toolkit.runtime.runner import Runner
from toolkit.types import ON_CPU, Classifier

REFERENCE = "reference"


def recipe_of(manifest: Manifest) -> Recipe:
    """The recipe that an engine was built from. Raises EngineError."""
    try:
        return msgspec.convert(manifest.recipe, Recipe)
    except msgspec.ValidationError as error:
        raise EngineError(
            f"the manifest of {manifest.name} has no usable recipe: {error}", remedy="Build the engine again"
        ) from error


def judge(engine: Path, against: Path | None = None, stage: Stage = quiet) -> tuple[Verdict, str]:
    """The paired verdict on an engine against its reference, or another engine, and in what way it was come by: `measured`, or
    `predicted` and why. Raises DataError where the recipe's `[accept]` names no data."""
    manifest = Manifest.read(engine)
    recipe = recipe_of(manifest)
    images = proof_images(recipe)
    if images is None:
        raise DataError(
            f"the recipe of {manifest.name} names no images to judge it on", remedy="Set `accept.data` and build it again"
        )
    with answering(engine, manifest) as (runner, how):
        ours = accuracy(runner, images, name=manifest.name, progress=stage(f"answers of {manifest.name}"))
    if against is not None:
        other = Manifest.read(against)
        with answering(against, other) as (runner, _):
            truth = accuracy(runner, images, name=other.name, progress=stage(f"answers of {other.name}"))
    else:
        with open_reference(recipe) as reference:
            truth = accuracy(reference, images, name=REFERENCE, progress=stage("answers of the reference"))
    accept = recipe.accept
    name = Manifest.read(against).name if against is not None else "the reference"
    classes = manifest.classes or images.classes
    verdict = compare_accuracy(
        truth, ours, images.labels, accept.max_top1_drop, accept.min_agreement,
        classes=classes, name=manifest.name, against=name, meaning=manifest.meaning,
    )  # fmt: skip
    return verdict, how


@contextmanager
def answering(engine: Path, manifest: Manifest) -> Iterator[tuple[Classifier, str]]:
    """The engine, live; where this machine cannot run it, the graph that it was compiled from, on ONNX Runtime's CPU."""
    try:
        runner = load(engine)
    except (BackendError, DeviceError) as error:
        graph = engine / GRAPH
        if not graph.is_file() or sha256(graph) != manifest.hashes.get("onnx"):
            raise
        yield (
            predicting_runner(load_graph(graph), manifest.to_target()),
            f"predicted: {error.what}; ONNX Runtime ran the graph that it was compiled from, rounded as the target rounds",
        )
        return
    with runner:
        yield runner, "measured"


def bench(
    engines: Sequence[Path],
    scenario: Scenario = "single-stream",
    *,
    batches: Sequence[int] = (),
    plan: Plan = Plan(),  # noqa: B008  frozen
    bound: float | None = None,
    loadgen: bool = True,
    threads: int | None = None,
    save: Callable[[Results], None] | None = None,
    stage: Stage = quiet,
) -> Results:
    """Bench the engines in the same shuffled rounds as the reference of the first, with accuracy where it names images.

    `threads` overrules what engines on the CPU were built with. Raises MeasurementError where another engine is among them.
    """
    manifests = [Manifest.read(path) for path in engines]
    recipe = recipe_of(manifests[0])
    images = proof_images(recipe)
    options = _options(manifests, threads)
    cores = threads or recipe.build.threads or cpu.cores()
    folders = dict(zip(_names(manifests), engines, strict=True))
    with ExitStack() as stack:
        runners: dict[str, Runner] = {REFERENCE: stack.enter_context(open_reference(recipe, cores))}
        runners |= {name: stack.enter_context(load(path, **options)) for name, path in folders.items()}
        pictures = [images.picture(i) for i in range(min(8, images.count))] if images is not None else None
        costs = handoff([runners[name].manifest for name in folders])
        results = run_bench(
            runners, scenario, batches=batches, plan=plan, bound=bound, loadgen=loadgen, images=images, pictures=pictures,
            reference=REFERENCE, accept=recipe.accept, handoff=costs, save=save, stage=stage,
        )
    results = explain(results, folders, progress=stage("peaks of this machine, time by layer"))
    if save is not None:
        save(results)
    return results


def _options(manifests: Sequence[Manifest], threads: int | None) -> dict[str, Any]:
    if threads is None:
        return {}
    for manifest in manifests:
        if manifest.target not in ON_CPU:
            what = f"--threads is for engines on the CPU, {manifest.name} is for {manifest.target}"
            raise MeasurementError(what, remedy="Leave it away, or bench that engine on its own")
    return {"threads": threads}


def handoff(manifests: Sequence[Manifest]) -> Handoff | None:
    """The yardstick of what engines on the CPU pay for several threads; None where none has several."""
    if not any(m.target in ON_CPU and int(m.settings.get("threads", 1)) > 1 for m in manifests):
        return None
    one, two = (onnxruntime_profile.small_layers(chain(), threads) for threads in (1, 2))
    return Handoff(f"{LAYERS} small layers on two threads, over one", one, two)


def _names(manifests: Sequence[Manifest]) -> list[str]:
    """The engines' names; those of one recipe for several targets say the target too."""
    names = [manifest.name for manifest in manifests]
    return [f"{m.name} ({m.target})" if names.count(m.name) > 1 else m.name for m in manifests]
