"""Inspection: all that an engine tells without running it. It reads what the build wrote down, so it needs no library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from toolkit.calibration.ranges import Ranges
from toolkit.engine.judge import Proof
from toolkit.errors import EngineError, MissingExtra
from toolkit.manifest import Manifest
from toolkit.types import Finding, Frozen

if TYPE_CHECKING:
    from toolkit.engine.engine import Engine


class Inspection(Frozen, frozen=True):
    """`layers` are the operators of the compiled graph, and how many of each there are."""

    manifest: Manifest
    layers: dict[str, int]
    findings: tuple[Finding, ...]
    ranges: Ranges | None = None
    proof: Proof | None = None
    remarks: tuple[str, ...] = ()


class Told(msgspec.Struct, frozen=True):
    """What of `layers.json` is read here; other keys are a backend's own."""

    operators: dict[str, int] | None = None
    findings: tuple[Finding, ...] = ()


def inspect(engine: Engine) -> Inspection:
    """Raises EngineError, CalibrationError: a file that cannot be read."""
    try:
        found = msgspec.convert(engine.layers, Told)
    except msgspec.ValidationError as error:
        raise EngineError(f"the layers that {engine.path} tells are damaged: {error}", remedy="Build it again") from error
    operators, remarks = found.operators, engine.remarks
    if operators is None:  # an engine of version 1
        from collections import Counter

        try:
            operators = dict(Counter(node.op_type for node in engine.graph.graph).most_common())
        except MissingExtra as error:
            operators, remarks = {}, (*remarks, f"its operators are not told: {error}")
    return Inspection(
        manifest=engine.manifest,
        layers=operators,
        findings=found.findings,
        ranges=engine.ranges,
        proof=engine.proof,
        remarks=remarks,
    )
