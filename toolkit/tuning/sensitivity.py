"""Sensitivity: what each part of a network does to the logits when it alone is INT8, and when it alone is not.

A unit is a block (`layer1.0`) or a layer outside of one; where there are more than 18, neighbours are joined. Each takes two
evaluations: 36 for a ResNet-50.
"""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from toolkit.graph.edit import weight_of
from toolkit.graph.scheme_cpu import computes
from toolkit.graph.work import layers
from toolkit.tuning.trial import Layers, Trial
from toolkit.tuning.workbench import Workbench, vary

UNITS = 18


class Unit(NamedTuple):
    """Nodes that are kept or quantised together; `keep` is how a recipe names them."""

    name: str
    keep: tuple[str, ...]
    nodes: tuple[ir.Node, ...]


def units(graph: ir.Model, most: int = UNITS) -> list[Unit]:
    """The units of a graph in its order, each with a weight."""
    groups: list[tuple[str, list[ir.Node]]] = []
    for node in graph.graph:
        if not node.name or not computes(node, ()):
            continue
        prefix = node.name.rpartition(".")[0] if "." in node.name else ""
        weighted = weight_of(node) is not None
        before = groups[-1][0] if groups else ""
        if groups and (not weighted or (before and f"{prefix}.".startswith(f"{before}."))):
            groups[-1][1].append(node)
        else:
            groups.append((prefix, [node]))
    return [_unit(prefixes, nodes) for prefixes, nodes in _join(groups, most)]


def _join(groups: list[tuple[str, list[ir.Node]]], most: int) -> list[tuple[list[str], list[ir.Node]]]:
    each = -(-len(groups) // most)
    chunks = [groups[i : i + each] for i in range(0, len(groups), each)]
    return [([prefix for prefix, _ in chunk], [node for _, nodes in chunk for node in nodes]) for chunk in chunks]


def _unit(prefixes: list[str], nodes: list[ir.Node]) -> Unit:
    names = [node.name or "" for node in nodes]
    if len(prefixes) > 1 or not prefixes[0]:
        return Unit(names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}", tuple(names), tuple(nodes))
    beside = [name for name in names if not name.startswith(f"{prefixes[0]}.")]
    return Unit(prefixes[0], (prefixes[0], *beside), tuple(nodes))


def sensitivity(bench: Workbench, base: Trial, parts: list[Unit]) -> list[Layers]:
    """Two evaluations a unit, on the calibration subset; fewer units where the bench has fewer evaluations left.

    One part alone has nothing to be compared with: the answer is empty.
    """
    work = {node.name: layer.macs for node, layer in layers(bench.fp32())}
    total = sum(work.values())
    progress = bench.stage(f"sensitivity of {len(parts)} parts")
    found = []
    for index, part in enumerate(parts):
        if bench.left < 2 or len(parts) < 2:
            break
        others = tuple(key for other in parts if other is not part for key in other.keep)
        kept = base.recipe.precision.keep
        alone = bench.trial(f"{part.name} alone", vary(base.recipe, keep=others))
        left_out = bench.trial(f"all but {part.name}", vary(base.recipe, keep=(*kept, *part.keep)))
        share = sum(work.get(node.name, 0) for node in part.nodes) / max(1, total)
        found.append(Layers(unit=part.name, keep=part.keep, alone=alone.snr, left_out=left_out.snr, share=share))
        progress(index + 1, len(parts))
    return found
