"""Which nodes take a variance or a norm: squares that FP16 can neither hold (from 256 up) nor tell from nothing (below 2^-12).

A LayerNorm, an RMSNorm or an L2 normalization that was exported as single operators squares its activations, takes the mean or
the sum, and divides by the root. In FP16 the squares overflow at activations of 256 and vanish at 2e-4, and an epsilon
below 6e-8 is 0. So the whole branch stays in FP32, as LayerNormalization in one operator keeps it: from the difference to the
mean through the square, the reduction and the root, to the quotient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from toolkit.graph.edit import constant
from toolkit.types import Frozen

REDUCES = ("ReduceMean", "ReduceSum", "GlobalAveragePool")
SQUARES_AND_REDUCES = ("ReduceSumSquare", "ReduceL2", "LpNormalization")
MOVES = ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
SCALARWISE = ("Add", "Clip", "Div", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub", *MOVES, *REDUCES)


class Island(Frozen, frozen=True):
    """Nodes that stay in FP32 in a graph of FP16; printed, it says why."""

    nodes: tuple[str, ...]


def island_lines(islands: Sequence[Island]) -> tuple[str, ...]:
    """A line for each; of more than three for one reason the first, and how many more there are."""
    kinds: dict[type[Island], list[Island]] = {}
    for island in islands:
        kinds.setdefault(type(island), []).append(island)
    lines: list[str] = []
    for same in kinds.values():
        nodes = len({node for island in same for node in island.nodes})
        few = len(same) <= 3
        lines += (
            map(str, same) if few else [f"{same[0]}; for the same reason at {len(same) - 1} more places, {nodes} nodes in all"]
        )
    return tuple(lines)


class Branch(Island, frozen=True):
    """The nodes of one variance, in graph order."""

    def __str__(self) -> str:
        ends = self.nodes[0] if len(self.nodes) == 1 else f"{self.nodes[0]} to {self.nodes[-1]}"
        return f"FP32 kept for a variance or norm, whose squares float16 cannot hold: {ends} ({len(self.nodes)} nodes)"


def variances(model: ir.Model) -> tuple[Branch, ...]:
    """The branches of an FP32 graph; two that share a node are one."""
    found: list[set[ir.Node]] = []
    for node in model.graph:
        if _squares(node):
            branch = set(_branch(node))
            joined = [other for other in found if not other.isdisjoint(branch)]
            found = [other for other in found if other.isdisjoint(branch)] + [branch.union(*joined)]
    places = {node: index for index, node in enumerate(model.graph)}
    ordered = sorted((sorted(branch, key=places.__getitem__) for branch in found if branch), key=lambda b: places[b[0]])
    return tuple(Branch(nodes=tuple(node.name or "" for node in branch)) for branch in ordered)


def _squares(node: ir.Node) -> bool:
    if node.domain:
        return False
    if node.op_type == "Pow":
        exponent = constant(node.inputs[1])
        return exponent is not None and exponent.size == 1 and float(exponent.ravel()[0]) >= 2
    return node.op_type in SQUARES_AND_REDUCES or (node.op_type == "Mul" and node.inputs[0] is node.inputs[1])


def _branch(square: ir.Node) -> Iterator[ir.Node]:
    """The nodes that belong to `square`; none where nothing reduces it."""
    head, reduction = _reduction(square)
    if reduction is None:
        return
    kept = set(head)
    difference = square.inputs[0].producer() if square.inputs[0] is not None else None
    if difference is not None and difference.op_type == "Sub" and not difference.domain:
        kept.add(difference)
        kept.update(_mean(difference.inputs[1]))
    waiting = [reduction]
    while waiting:
        for output in waiting.pop().outputs:
            for reader in (use.node for use in output.uses()):
                if reader in kept or reader.domain or reader.op_type not in SCALARWISE:
                    continue
                others = [value for value in reader.inputs if value is not None and value is not output]
                kept.add(reader)
                for value in others:
                    kept.update(_mean(value))
                if all(constant(value) is not None or value.producer() in kept - {difference} for value in others):
                    waiting.append(reader)
    yield from kept


def _reduction(square: ir.Node) -> tuple[list[ir.Node], ir.Node | None]:
    """From the square to what reduces it, and that: the square itself where one operator does both."""
    if square.op_type in SQUARES_AND_REDUCES:
        return [square], square
    chain, waiting = [square], [square]
    while waiting:
        for reader in waiting.pop().outputs[0].consumers():
            if reader.op_type in REDUCES and not reader.domain:
                return [*chain, reader], reader
            factor = reader.op_type in ("Mul", "Div") and any(constant(value) is not None for value in reader.inputs)
            if reader.op_type in MOVES or factor:
                chain.append(reader)
                waiting.append(reader)
    return [], None


def _mean(value: ir.Value | None) -> list[ir.Node]:
    """The nodes behind `value` where it is a reduction, or the square of one; none otherwise."""
    chain: list[ir.Node] = []
    while value is not None and (node := value.producer()) is not None and not node.domain:
        chain.append(node)
        if node.op_type in REDUCES:
            return chain
        if node.op_type not in (*MOVES, "Pow", "Mul", "Sqrt") or (node.op_type == "Mul" and node.inputs[0] is not node.inputs[1]):
            return []
        value = node.inputs[0]
    return []


class Vanishing(Island, frozen=True):
    """A node with a constant of one value, such as an epsilon, that float16 rounds to 0, and those that read its result."""

    value: float

    def __str__(self) -> str:
        return f"FP32 kept for {', '.join(self.nodes)}: the constant {self.value:.3g} of {self.nodes[0]} is 0 in float16"


def vanishing(model: ir.Model) -> tuple[Vanishing, ...]:
    """In graph order."""
    found = []
    for node in model.graph:
        lone = [array.ravel()[0] for value in node.inputs if (array := constant(value)) is not None and array.size == 1]
        lost = [float(x) for x in lone if x.dtype == np.float32 and x != 0 and np.float16(x) == 0]
        if lost:
            readers = [reader.name or "" for output in node.outputs for reader in output.consumers()]
            found.append(Vanishing(nodes=tuple(dict.fromkeys((node.name or "", *readers))), value=lost[0]))
    return tuple(found)
