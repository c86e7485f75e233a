"""Reads an engine's folder for `toolkit inspect`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from toolkit.calibration.ranges import Ranges
from toolkit.errors import EngineError
from toolkit.files import sha256
from toolkit.graph.lint import Finding, lint
from toolkit.graph.qdq import scheme_of
from toolkit.graph.run import load_graph
from toolkit.manifest import Manifest
from toolkit.measure import recipe_of
from toolkit.pipeline import GRAPH, RANGES
from toolkit.types import Frozen


class Inspection(Frozen, frozen=True):
    """All that an engine's folder tells without running it. `layers` are (operator, how many) of the compiled graph."""

    manifest: Manifest
    layers: dict[str, int]
    findings: tuple[Finding, ...]
    ranges: Ranges | None = None


def inspect(engine: Path) -> Inspection:
    """Raises EngineError, GraphError, CalibrationError: no engine there, or damaged."""
    manifest = Manifest.read(engine)
    file = manifest.check_file(engine)
    path = file if file.suffix == ".onnx" else engine / GRAPH
    graph = load_graph(path)
    if path != file and sha256(path) != manifest.hashes.get("onnx"):
        raise EngineError(f"{path} is not the graph that the engine was compiled from", remedy="Build the engine again")
    keep = recipe_of(manifest).precision.keep
    ranges = engine / RANGES
    return Inspection(
        manifest=manifest,
        layers=dict(Counter(node.op_type for node in graph.graph).most_common()),
        findings=lint(graph, scheme_of(manifest.to_target()), keep),
        ranges=Ranges.read(ranges) if ranges.exists() else None,
    )
