"""Engines that were built, measured in the same rounds as the reference they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from toolkit import cpu
from toolkit.backends.onnxruntime import profile as onnxruntime_profile
from toolkit.engine.engine import Engine
from toolkit.engine.judge import images_of
from toolkit.engine.locations import require_reference
from toolkit.errors import MeasurementError, ToolkitError, extras
from toolkit.harness.latency import Sampling
from toolkit.harness.measurement import Scenario
from toolkit.harness.results import ABSENT, Results
from toolkit.harness.run import check_wanted, run_bench
from toolkit.harness.yardstick import Handoff
from toolkit.images.dataset import Images
from toolkit.insight import explain, footprint
from toolkit.manifest import Manifest
from toolkit.runtime.runner import Runner
from toolkit.types import ON_CPU, Float, Stage, quiet

REFERENCE = "reference"


def bench(
    engines: Sequence[Engine | str | Path],
    scenario: Scenario = "single-stream",
    *,
    data: str | None = None,
    batches: Sequence[int] = (),
    plan: Sampling = Sampling(),  # noqa: B008  frozen
    bound: float | None = None,
    loadgen: bool = True,
    threads: int | None = None,
    save: Callable[[Results], None] | None = None,
    stage: Stage = quiet,
) -> Results:
    """Bench the engines in the same shuffled rounds as the reference of the first, with accuracy on `data`, or its own images.

    Where the reference is not here, the results say what it took where the first engine was built, and accuracy is compared with
    the answers that this engine carries. `threads` overrides what engines on the CPU were built with (others: MeasurementError).
    """
    check_wanted(scenario, batches, bound)
    opened = _opened(engines)
    first = opened[0]
    options = _options([engine.manifest for engine in opened], threads)
    named = dict(zip(_names([engine.manifest for engine in opened]), opened, strict=True))
    images, missing = images_of(first, data)
    with ExitStack() as stack:
        reference = _reference(first, threads or first.recipe.build.threads or cpu.cores())
        runners = {REFERENCE: stack.enter_context(reference)} if isinstance(reference, Runner) else {}
        runners |= {name: stack.enter_context(engine.runner(**options)) for name, engine in named.items()}
        results = run_bench(
            runners, scenario, batches=batches, plan=plan, bound=bound, loadgen=loadgen, images=images, pictures=some_of(images),
            reference=REFERENCE, truth=_truth(first, images, REFERENCE in runners), accept=first.recipe.accept,
            handoff=handoff([runners[name].manifest for name in named]), save=save, stage=stage,
        )
    if isinstance(reference, str):
        results = msgspec.structs.replace(results, failures={REFERENCE: reference, **results.failures})
    notes = (f"accuracy was not compared: {missing}",) if images is None else images.remarks
    results = _explained(msgspec.structs.replace(results, notes=notes), named, stage)
    if save:
        save(results)
    return results


def _opened(engines: Sequence[Engine | str | Path]) -> list[Engine]:
    if not engines:
        raise MeasurementError("there is no engine to measure", remedy="Name one, or several of one reference")
    return [engine if isinstance(engine, Engine) else Engine.open(engine) for engine in engines]


def _explained(results: Results, engines: Mapping[str, Engine], stage: Stage) -> Results:
    """With what each engine takes on disk and in memory, the ranges of INT8, and, where it can be told, its layers."""
    stage("what each engine takes in memory")
    ranges = {name: engine.ranges for name, engine in engines.items()}
    results = msgspec.structs.replace(
        results,
        footprints={name: footprint(engine) for name, engine in engines.items()},
        ranges={name: msgspec.json.decode(found.encode()) for name, found in ranges.items() if found is not None},
    )
    if not can_explain():
        return results
    return explain(results, engines, progress=stage("peaks of this machine, time by layer"))


def some_of(images: Images | None) -> list[Any] | None:
    """A few pictures, for the clock that includes preprocessing."""
    return None if images is None else [images.picture(i) for i in range(min(8, images.count))]


def _reference(engine: Engine, threads: int) -> Runner | str:
    """The reference, live; or, where it is not here, that, and what it took where the engine was built."""
    try:
        require_reference(engine.recipe)
        with extras():
            from toolkit.reference.source import open_reference

            return open_reference(engine.recipe, threads)
    except (ToolkitError, ImportError) as error:
        why = error.what if isinstance(error, ToolkitError) else str(error)
    kept = engine.manifest.baseline
    if kept is None or kept.latency is None:
        return f"{ABSENT}: {why}"
    took = f"where {engine.name} was built it took {1e3 * kept.latency:.3g} ms at batch 1 ({kept.library}, {kept.device})"
    return f"{ABSENT}: {why}; {took}"


def _truth(engine: Engine, images: Images | None, live: bool) -> Float | None:
    """The reference's answers that the engine carries, where it is not here and they cover the images."""
    if images is None or live or engine.answers is None:
        return None
    rows, truth = engine.answers.of(images.digests)
    return truth if len(rows) == images.count else None


def can_explain() -> bool:
    """Whether peaks, work and layers can be told: they take graphs, and so the package onnx."""
    return find_spec("onnx") is not None and find_spec("onnx_ir") is not None


def _options(manifests: Sequence[Manifest], threads: int | None) -> dict[str, Any]:
    if threads is None:
        return {}
    for manifest in manifests:
        if manifest.target not in ON_CPU:
            what = f"--threads is for engines on the CPU, {manifest.name} is for {manifest.target}"
            raise MeasurementError(what, remedy="Leave it out, or bench that engine on its own")
    return {"threads": threads}


def handoff(manifests: Sequence[Manifest]) -> Handoff | None:
    """The yardstick of what engines on the CPU pay for several threads; None where none has several."""
    if not can_explain() or not any(m.target in ON_CPU and int(m.settings.get("threads", 1)) > 1 for m in manifests):
        return None
    from toolkit.graph.product import LAYERS, chain

    one, two = (onnxruntime_profile.small_layers(chain(), threads) for threads in (1, 2))
    return Handoff(f"{LAYERS} small layers on two threads, over one", one, two)


def _names(manifests: Sequence[Manifest]) -> list[str]:
    """The engines' names; those of one recipe for several targets say the target too."""
    names = [manifest.name for manifest in manifests]
    return [f"{m.name} ({m.target})" if names.count(m.name) > 1 else m.name for m in manifests]
