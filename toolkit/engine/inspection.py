"""Inspection: all that an engine tells without running it. It reads what the build wrote down, so it needs no library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.calibration.ranges import Ranges
from toolkit.engine.judge import Proof
from toolkit.manifest import Manifest
from toolkit.types import Frozen

if TYPE_CHECKING:
    from toolkit.engine.engine import Engine


class Finding(Frozen, frozen=True):
    """What lint found at one node, as the build kept it."""

    rule: str
    node: str
    what: str
    fix: str


class Inspection(Frozen, frozen=True):
    """`layers` are the operators of the compiled graph, and how many of each there are."""

    manifest: Manifest
    layers: dict[str, int]
    findings: tuple[Finding, ...]
    ranges: Ranges | None = None
    proof: Proof | None = None
    remarks: tuple[str, ...] = ()


def inspect(engine: Engine) -> Inspection:
    """Raises EngineError, CalibrationError: a file that cannot be read."""
    found: dict[str, Any] = engine.layers
    operators, findings = found.get("operators"), found.get("findings", ())
    if operators is None:  # an engine of version 1
        from collections import Counter

        operators = dict(Counter(node.op_type for node in engine.graph.graph).most_common())
    return Inspection(
        manifest=engine.manifest,
        layers=operators,
        findings=tuple(Finding(**finding) for finding in findings),
        ranges=engine.ranges,
        proof=engine.proof,
        remarks=engine.remarks,
    )
