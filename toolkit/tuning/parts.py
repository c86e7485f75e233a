"""Parts: the pieces of any network that are kept or quantized together, found in its structure, named by its names.

1. Where only one tensor goes on from what has been computed to what has not, the network can be cut. Between two such cuts lies a
   residual block, a dense block, an inception module, or a single layer. Tensors that only tell a shape do not count.
2. A piece with more than its share of the layers, such as a dense block, is cut further: where the names of its nodes change
   scope, else into runs of equal length. So is a network without any cut.
3. Where there are more pieces than asked for, neighbors of one scope are joined, the deepest scope that suffices; where names
   tell nothing, or would make a piece with more than its share, neighbors with the least work.

A scope is what stands before the last `.`, or `/` in a name that starts with one: of `layer1.0.conv1` it is layer1.0, of
`/features/features.1/conv/Conv` /features/features.1/conv.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import onnx_ir as ir

from toolkit.graph.edit import constant, matches, weight_of
from toolkit.graph.scheme_cpu import computes
from toolkit.graph.work import layers

MOST = 18
SHAPES = ("Shape", "Size")  # what reads a tensor and carries none of it on
SHARE = 4  # a piece with more than a quarter of all layers is cut further


class Unit(NamedTuple):
    """Nodes that are kept or quantized together; `keep` is how a recipe names them."""

    name: str
    keep: tuple[str, ...]
    nodes: tuple[ir.Node, ...]


def units(graph: ir.Model, most: int = MOST) -> list[Unit]:
    """The parts of a graph in its order, each with a weight; `most` of them at most. Empty where nothing has one."""
    pieces = [piece for whole in _pieces(graph) for piece in _cut_further(whole, _layers(graph))]
    pieces = _with_weights(pieces)
    work = {node.name: found.macs for node, found in layers(graph)}
    if len(pieces) > most:
        joined = _by_scope(pieces, most)
        pieces = joined if joined and max(map(_heavy, joined)) * SHARE <= _layers(graph) else pieces
    while len(pieces) > most:
        costs = [_work(one, work) + _work(two, work) for one, two in pairwise(pieces)]
        at = costs.index(min(costs))
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    names = [node.name for node in graph.graph if node.name and computes(node, ())]
    return [_unit(piece, names) for piece in pieces]


def why_few(parts: Sequence[Unit]) -> str | None:
    """Why mixed precision is not searched; None where it is."""
    if len(parts) > 1:
        return None
    if not parts:
        return "no mixed precision: no layer with a weight is named, so none can be left out"
    count = _heavy(parts[0].nodes)
    return f"no mixed precision: the network has {count} layer{'s' * (count != 1)} with a weight, which make a single part"


def scope(node: ir.Node) -> tuple[str, ...]:
    """The path that leads to a node, outermost first; empty where its name has none."""
    name = node.name or ""
    return tuple(re.findall(r"/[^/]+" if name.startswith("/") else r"[./]?[^./]+", name))[:-1]


def _layers(graph: ir.Model) -> int:
    return _heavy([node for node in graph.graph if computes(node, ())])


def _heavy(nodes: Sequence[ir.Node]) -> int:
    """How many have a weight."""
    return sum(weight_of(node) is not None for node in nodes)


def _pieces(graph: ir.Model) -> list[list[ir.Node]]:
    """Step 1: the nodes that a scheme computes in INT8, cut where a single tensor goes on."""
    nodes = list(graph.graph)
    last = {v: i for i, node in enumerate(nodes) if node.op_type not in SHAPES for v in node.inputs if v is not None}
    found: list[list[ir.Node]] = [[]]
    live: set[ir.Value] = {value for value in graph.graph.inputs if value in last}
    for index, node in enumerate(nodes):
        if node.name and computes(node, ()):
            found[-1].append(node)
        live |= {value for value in node.outputs if _carries(value) and last.get(value, -1) > index}
        live = {value for value in live if last[value] > index}
        if len(live) == 1 and next(iter(live)) in node.outputs:
            found.append([])
    return [piece for piece in found if piece]


def _carries(value: ir.Value) -> bool:
    """Whether it is an activation: float, and not known beforehand."""
    return value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, None) and constant(value) is None


def _cut_further(piece: list[ir.Node], total: int) -> list[list[ir.Node]]:
    """Step 2."""
    count = _heavy(piece)
    if count < 3 or count * SHARE <= total:
        return [piece]
    shared = len(_common(piece))
    scopes = _runs(piece, lambda node: scope(node)[: shared + 1])
    if 1 < len(scopes) < len(piece):
        return [part for run in scopes for part in _cut_further(run, total)]
    length = max(1, -(-total // MOST))
    found: list[list[ir.Node]] = [[]]
    for node in piece:
        if _heavy(found[-1]) == length and weight_of(node) is not None:
            found.append([])
        found[-1].append(node)
    return found


def _by_scope(pieces: list[list[ir.Node]], most: int) -> list[list[ir.Node]] | None:
    """Step 3: neighbors of one scope as one, the deepest scope that leaves `most` or fewer."""
    paths = [_common([node for node in piece if weight_of(node) is not None]) for piece in pieces]
    for depth in range(max(map(len, paths), default=0), 0, -1):
        keys = [path[:depth] or (str(index),) for index, path in enumerate(paths)]
        runs = groupby(zip(keys, pieces, strict=True), lambda pair: pair[0])
        joined = [[node for _, piece in run for node in piece] for _, run in runs]
        if 1 < len(joined) <= most:
            return joined
    return None


def _with_weights(pieces: list[list[ir.Node]]) -> list[list[ir.Node]]:
    """Pieces without a weight, such as a single sum, join the one before."""
    found: list[list[ir.Node]] = []
    for piece in pieces:
        if found and not _heavy(piece):
            found[-1].extend(piece)
        else:
            found.append(list(piece))
    return found


def _runs(nodes: Sequence[ir.Node], key: Callable[[ir.Node], object]) -> list[list[ir.Node]]:
    return [list(run) for _, run in groupby(nodes, key)]


def _common(nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    """The scope that all share."""
    paths = [scope(node) for node in nodes]
    depth = 0
    while all(len(path) > depth and path[depth] == paths[0][depth] for path in paths):
        depth += 1
    return paths[0][:depth]


def _work(piece: Sequence[ir.Node], work: dict[str | None, int]) -> int:
    return sum(work.get(node.name, 0) for node in piece)


def _unit(piece: Sequence[ir.Node], every: Sequence[str]) -> Unit:
    """Called after the scope of its layers where no other layer is in it, else after its first and last; `every` layer's name."""
    names = [node.name or "" for node in piece]
    heavy = [node for node in piece if weight_of(node) is not None] or list(piece)
    inside = "".join(_common(heavy))
    pattern = f"{inside}/*" if inside.startswith("/") else inside
    if inside and len(names) > 1 and not any(matches(other, [pattern]) for other in set(every) - set(names)):
        return Unit(inside, (pattern, *(name for name in names if not matches(name, [pattern]))), tuple(piece))
    return Unit(names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}", tuple(names), tuple(piece))
