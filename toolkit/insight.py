"""Insight: why an engine is as fast as it is. The machine's peaks, the engine's work, and its time layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from toolkit.backends.onnxruntime.profile import gemms, profile
from toolkit.cpu import cores
from toolkit.engine.engine import Engine
from toolkit.harness.layers import LayerTimes
from toolkit.harness.results import Results
from toolkit.harness.roofline import Peaks, Work, measure_peaks
from toolkit.manifest import Manifest
from toolkit.types import Progress


def explain(results: Results, engines: Mapping[str, Engine], *, progress: Progress | None = None) -> Results:
    """`results` with `peaks`, `work` and `layers` of the engines given by name.

    Only ONNX Runtime's CPU engines tell their layers and are held against this machine's peaks; others are left as they are.
    An engine's reference, where it was measured, must do the work of the FP32 engine of the same weights. Takes a few seconds.
    """
    manifests = {name: engine.manifest for name, engine in engines.items()}
    local = {name: manifest for name, manifest in manifests.items() if manifest.target == "cpu"}
    if not local:
        return results
    from toolkit.graph.work import work_of

    peaks = _peaks(local)
    tasks: dict[str, Work] = dict(results.work)
    layers: list[LayerTimes] = list(results.layers)
    for done, (name, manifest) in enumerate(local.items()):
        tasks[name] = work_of(engines[name].graph)
        layers.append(msgspec.structs.replace(profile(engines[name].contents, manifest), engine=name))
        if progress:
            progress(done + 1, len(local))
    for name in results.manifests.keys() - manifests.keys():
        twin = next((n for n, m in local.items() if m.precision == "fp32" and _same_weights(results, name, n)), None)
        if twin:
            tasks[name] = tasks[twin]
    return msgspec.structs.replace(results, peaks=peaks, work=tasks, layers=tuple(layers))


def _peaks(local: Mapping[str, Manifest]) -> Peaks:
    from toolkit.graph.product import products

    threads = max(int(manifest.settings.get("threads", cores())) for manifest in local.values())
    return measure_peaks(threads, gemms(products(), threads))


def _same_weights(results: Results, one: str, other: str) -> bool:
    hashes = [results.manifests.get(name, {}).get("hashes", {}).get("weights") for name in (one, other)]
    return hashes[0] is not None and hashes[0] == hashes[1]
