"""Exports: the FP32 graph of a PyTorch reference, made once for all precisions and targets and kept in the cache by its hash."""

from __future__ import annotations

from functools import cache as once
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
from torch import nn

from toolkit.disk import cache
from toolkit.disk.files import sha256_bytes
from toolkit.errors import GraphError
from toolkit.graph.export import export
from toolkit.graph.run import parse_graph
from toolkit.onnxfile import serialize
from toolkit.recipe import Preprocess
from toolkit.recipe.modules import digest

_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript")
_ROOMS = ("graph", "reference")  # whose code decides what an export is


def exported(model: nn.Module, preprocess: Preprocess) -> ir.Model:
    """As `export`, or what an export of the same network, weights, input and versions left in the cache. Raises GraphError.

    Of a network of ours its printed form tells every stride and pool; a module of the user's may compute anything, and is for
    `export` alone.
    """
    parts = (repr(model), digest(model), repr(preprocess.input_shape), _makers())
    key = sha256_bytes("\0".join(parts).encode())[:24]
    kept = cache.find("exports", key)
    if kept is not None:
        try:
            return parse_graph(kept, f"the cached export {key}")
        except GraphError:
            pass  # of another onnx-ir's making, though of the same version: it is made again
    graph = export(model, preprocess)
    cache.keep("exports", key, serialize(graph))
    return graph


@once
def _makers() -> str:
    """The versions of the libraries and the code of the toolkit that exports are made by."""
    root = Path(__file__).parents[1]
    files = sorted(file for room in _ROOMS for file in (root / room).rglob("*.py"))
    return sha256_bytes(*(version(name).encode() for name in _PACKAGES), *(file.read_bytes() for file in files))
