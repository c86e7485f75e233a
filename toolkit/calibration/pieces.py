"""Pieces: a graph written with the tensors that calibration watches, and cut so that values are counted while in the cache."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.types import Array

if TYPE_CHECKING:
    import onnx_ir as ir

_LANES = 16  # the widest block of channels in ONNX Runtime's NCHWc layout; other CPUs have 8


def write_watched(model: ir.Model, path: Path, tensors: Iterable[str]) -> None:
    """Write a model that puts out `tensors` and nothing else. The one given stays as it is.

    The weights go to a file of their own beside `path`, which ONNX Runtime maps into memory and does not copy.
    """
    import onnx_ir as ir

    copy, wanted = model.clone(), set(tensors)
    copy.graph.outputs[:] = [value for node in copy.graph for value in node.outputs if value.name in wanted]
    ir.save(copy, path, external_data=f"{path.stem}.weights")


class Piece(NamedTuple):
    """A file with part of a graph, which takes one value and puts out all that it computes.

    `outputs`: what each value is called here, and what it is called among the outputs of the whole graph, where it is one.
    `in_place`: values that only a ReLU reads and nobody watches -> that ReLU's output, which may have the same memory.
    """

    path: Path
    input: str
    outputs: dict[str, str | None]
    in_place: dict[str, str]


def in_pieces(path: Path) -> tuple[list[Piece], dict[str, Array]]:
    """Cut a graph that ONNX Runtime optimized and wrote to `path` into pieces, which, run in turn, have its outputs.
    Those that turned out constant come apart, by name.

    A piece ends with an output that is all that the nodes behind it need. What no output needs is in none of them. The files lie
    beside `path` and share its weights.

    An output may have another order of values than in the graph: ONNX Runtime's NCHWc kernels keep channels in blocks of 8 or 16,
    and each output costs one pass to reorder it, which is left out. Outputs whose channels may not fill their blocks keep their
    order: a block that is not full is filled up with zeros.
    """
    import onnx_ir as ir

    model = ir.load(path)
    names, start, pieces = _expose_blocks(model), model.graph.inputs[0], list[Piece]()
    for index, (wanted, end) in enumerate(_cut(model.graph)):
        file = path.with_name(f"{path.stem}.{index}.onnx")
        part = ir.convenience.extract(model.graph, [start], wanted)
        part.outputs[:] = [value for node in part for value in node.outputs if value.name]
        ir.save(ir.Model(part, ir_version=model.ir_version), file)
        called = {value.name or "": names.get(value.name or "") for value in part.outputs}
        pieces.append(Piece(file, start.name or "", called, _in_place(part, names)))
        start = end
    outputs = model.graph.outputs
    return pieces, {names[v.name or ""]: made.numpy().copy() for v in outputs if (made := v.const_value) is not None}


def _expose_blocks(model: ir.Model) -> dict[str, str]:
    """Let outputs be what their kernels write, in whatever order; the name that each had."""
    outputs = model.graph.outputs
    names = {}
    for index, output in enumerate(outputs):
        node = output.producer()
        if node is not None and node.op_type == "ReorderOutput" and node.attributes["channels"].as_int() % _LANES == 0:
            block = node.inputs[0]
            assert block is not None
            block.type, outputs[index] = output.type, block
            if not output.uses():
                model.graph.remove(node, safe=True)
        names[outputs[index].name or ""] = output.name or ""
    return names


def _in_place(graph: ir.Graph, watched: Container[str]) -> dict[str, str]:
    """See `Piece`. That ONNX Runtime's ReLU may write where it reads is in its kernel's definition (MayInplace)."""
    found = {}
    for node in graph:
        value = node.inputs[0] if node.op_type == "Relu" else None
        if value and value.producer() and len(value.uses()) == 1 and value.name not in watched:
            found[value.name or ""] = node.outputs[0].name or ""
    return found


def _cut(graph: ir.Graph) -> Iterator[tuple[list[ir.Value], ir.Value]]:
    """For each piece the outputs in it, in the order of the nodes, and the last of them: the one that is needed further on."""
    nodes, wanted = list(graph), set(graph.outputs)
    last = {value: index for index, node in enumerate(nodes) for value in node.inputs if value is not None}
    needed, outputs = set(graph.inputs), list[Any]()
    for index, node in enumerate(nodes):
        outputs += [value for value in node.outputs if value in wanted]
        needed = {value for value in (*needed, *node.outputs) if last.get(value, -1) > index}
        if outputs and needed == {outputs[-1]}:
            yield outputs, outputs[-1]
            outputs = []
    if outputs:
        yield outputs, outputs[-1]
