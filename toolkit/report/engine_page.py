"""Engine page: what an engine tells without running it, as a page: its card, its network, what calibration saw."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from toolkit.engine.inspection import Inspection
from toolkit.harness.layers import NetworkLayer
from toolkit.report.frame import frame, section
from toolkit.report.grid import grid
from toolkit.report.histograms import histograms
from toolkit.report.inspection import facts
from toolkit.report.markup import Child, tag
from toolkit.report.network import Box, network


def engine_page(found: Inspection, layers: Sequence[NetworkLayer]) -> str:
    """One HTML file. `layers`: the network, in the order in which it computes; empty where nothing here reads graphs."""
    manifest = found.manifest
    sections = [
        section("card", "What it is", [_facts(found)]),
        section("network", "Its network", _network(layers)),
        section("placement", "Where Q/DQ pairs could be placed better", _findings(found)),
        section("histograms", "What calibration saw", _ranges(found)),
    ]
    line = f"{manifest.precision} for {manifest.device or manifest.target}"
    return frame(f"The engine {manifest.name}", manifest.name, line, sections)


def _facts(found: Inspection) -> Element:
    lines = [(name, value) for name, value in facts(found.manifest) if value]
    if found.proof is not None:
        lines.insert(2, ("when it was built", f"{found.proof.verdict.text} ({found.proof.how})"))
    lines += [("remark", remark) for remark in found.remarks]
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in lines], class_="facts")


def _network(layers: Sequence[NetworkLayer]) -> list[Element]:
    if not layers:
        return [tag("p", "Its graph was not read: that takes pip install 'resnet-deploy[export]'.", class_="absent")]
    boxes = [Box(name=x.name, title=f"{x.name} ({x.kind}, {x.precision})", reads=x.reads, precision=x.precision) for x in layers]
    about = "Each layer by its original name, and what it computes in. Dotted: floating point."
    body: list[list[Child]] = [[x.name, x.kind, x.precision, ", ".join(x.reads) or "the input"] for x in layers]
    table = grid(["layer", "operator", "precision", "reads"], body, text=(0, 1, 2, 3))
    return [network(boxes, about), tag("details", tag("summary", f"All {len(layers)} layers"), table)]


def _findings(found: Inspection) -> list[Element]:
    if not found.findings:
        return [tag("p", "Nothing to improve.")]
    body: list[list[Child]] = [[x.rule, x.node, x.what, x.fix] for x in found.findings]
    return [grid(["rule", "node", "what", "fix"], body, text=(0, 1, 2, 3))]


def _ranges(found: Inspection) -> list[Element]:
    if found.ranges is None:
        return [tag("p", "It was not calibrated.", class_="absent")]
    calibration = found.manifest.recipe.get("calibration")
    return histograms(found.ranges, str(calibration.get("method", "")) if isinstance(calibration, dict) else "")
