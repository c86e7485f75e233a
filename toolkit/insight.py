"""Insight: why an engine is as fast as it is. The machine's peaks, the engine's work, and its time layer by layer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from toolkit.backends.onnxruntime.profile import gemms, profile
from toolkit.cpu import cores
from toolkit.engine.engine import Engine
from toolkit.errors import GraphError
from toolkit.harness.footprint import Footprint
from toolkit.harness.layers import LayerTimes, NetworkLayer
from toolkit.harness.results import Results
from toolkit.harness.roofline import Peaks, Work, measure_peaks
from toolkit.manifest import Manifest
from toolkit.types import ON_CPU, Progress

LIBRARIES = {"cpu": "onnxruntime", "openvino": "openvino"}
PEAK, NOW = "VmHWM", "VmRSS"  # of /proc/self/status


def explain(results: Results, engines: Mapping[str, Engine], *, progress: Progress | None = None) -> Results:
    """`results` with `peaks`, `work` and `layers` of the engines given by name.

    Only ONNX Runtime's CPU engines tell their layers and are compared with this machine's peaks; others are left as they are.
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
    notes = list(results.notes)
    for done, (name, manifest) in enumerate(local.items()):
        try:
            tasks[name] = work_of(engines[name].graph)
        except GraphError as error:  # it ran: its latency stands
            notes.append(f"{name} is not compared with this machine's peaks: {error.what}")
        layers.append(_named(msgspec.structs.replace(profile(engines[name].contents, manifest), engine=name), engines[name]))
        if progress:
            progress(done + 1, len(local))
    for name in results.manifests.keys() - manifests.keys():
        twins = (n for n, m in local.items() if m.precision == "fp32" and _same_weights(results, name, n))
        twin = next((n for n in twins if n in tasks), None)
        if twin:
            tasks[name] = tasks[twin]
    return msgspec.structs.replace(results, peaks=peaks, work=tasks, layers=tuple(layers), notes=tuple(notes))


def _named(times: LayerTimes, engine: Engine) -> LayerTimes:
    """The times with the original layer of each node, and the network that they belong to."""
    from toolkit.graph.outline import layer_of, outline

    network, owners = outline(engine.graph)
    layers = tuple(msgspec.structs.replace(layer, of=layer_of(layer.name, owners)) for layer in times.layers)
    return msgspec.structs.replace(times, layers=layers, network=network)


def network(engine: Engine) -> tuple[NetworkLayer, ...]:
    """The layers of an engine's graph by their original names; empty where graphs cannot be read here."""
    if not engine.has_graph or find_spec("onnx_ir") is None:
        return ()
    from toolkit.graph.outline import outline

    return outline(engine.graph)[0]


def footprint(engine: Engine, batch: int = 1) -> Footprint:
    """What an engine takes on disk; and in memory, where it runs on this CPU: a process of its own opens it and answers once."""
    sizes = {name: len(data) for name, data in engine.contents.items()}
    file = sizes[engine.manifest.file]
    memory = _memory(engine.path, batch) if engine.manifest.target in ON_CPU else None
    return Footprint(file=file, folder=sum(sizes.values()), memory=memory, batch=batch)


def _memory(path: Path, batch: int) -> int | None:
    """Bytes; None where the process could not tell."""
    command = [sys.executable, "-c", "from toolkit.insight import growth; growth()", str(path.absolute()), str(batch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return int(done.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def growth() -> None:
    """In a process of its own: opens the engine at argv[1], answers argv[2] images, prints by how much memory grew at its peak.

    The library's own code is not counted: it is loaded before.
    """
    path, batch = sys.argv[1:3]
    engine = Engine.open(path)
    spec = engine.manifest.inputs[0]
    size = [int(batch) if isinstance(d, str) else d for d in spec.shape]
    array = np.zeros(size, spec.dtype)
    import_module(LIBRARIES[engine.manifest.target])
    before = _kibibytes(NOW)
    with engine.runner() as runner:
        runner(array)
    print(max(0, _kibibytes(PEAK) - before) * 1024)


def _kibibytes(key: str) -> int:
    """Of /proc/self/status. Raises OSError where there is none."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def _peaks(local: Mapping[str, Manifest]) -> Peaks:
    from toolkit.graph.product import products

    threads = max(int(manifest.settings.get("threads", cores())) for manifest in local.values())
    return measure_peaks(threads, gemms(products(), threads))


def _same_weights(results: Results, one: str, other: str) -> bool:
    hashes = [results.manifests.get(name, {}).get("hashes", {}).get("weights") for name in (one, other)]
    return hashes[0] is not None and hashes[0] == hashes[1]
