"""What a foreign file says of who wrote it, and where, is in no byte of the graph that is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from tests.graph.load.files import HOW, write
from toolkit.graph.load import load
from toolkit.onnxfile import serialize

SOURCE = "/home/ann/train.py"


def signed(thing: Any) -> None:
    """Its comment and its metadata."""
    thing.doc_string = SOURCE
    thing.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=SOURCE)


def test_no_word_of_a_file_says_where_it_was_made(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx")
    plain = serialize(load(path, HOW).graph)
    model = onnx.load(path)
    model.producer_name = model.producer_version = model.domain = model.graph.name = SOURCE
    graph = model.graph
    for thing in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        signed(thing)
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = SOURCE
    onnx.save(model, path)
    assert b"/home/ann" in path.read_bytes()
    assert serialize(load(path, HOW).graph) == plain and b"ann" not in plain
