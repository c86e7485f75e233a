"""Layers that a builder script gives a precision: by the conditions on their names that the assignment hangs on."""

from __future__ import annotations

import ast
import glob
from collections.abc import Sequence

from toolkit.migrate.constants import Constants, text_of

AFTER = {"startswith": ("", "*"), "endswith": ("*", "")}


def selected(layer: ast.expr, conditions: Sequence[ast.expr], constants: Constants) -> tuple[list[str], list[str]]:
    """Names or patterns (`*`) of the layers, and the conditions that do not tell which layers they let through.

    `layer` is the expression that stands for the layer, such as `layer` in `layer.precision = trt.float32`.
    """
    named = f"{text_of(layer)}.name"
    asked = [condition for condition in conditions if _about(layer, condition)]
    found = [_names(condition, named, constants) for condition in asked]
    doubts = [text_of(condition) for condition, names in zip(asked, found, strict=True) if names is None]
    if not asked and not isinstance(layer, ast.Name):
        doubts = [text_of(layer)]  # such as network.get_layer(12)
    if doubts or len(found) > 1:  # several conditions: which layers pass all of them no pattern says
        return [], doubts or [" and ".join(map(text_of, asked))]
    return (found[0] or [], []) if found else (["*"], [])


def _about(layer: ast.expr, condition: ast.expr) -> bool:
    """Whether a condition asks something of the layer."""
    return any(isinstance(node, type(layer)) and text_of(node) == text_of(layer) for node in ast.walk(condition))


def _names(test: ast.expr, named: str, constants: Constants) -> list[str] | None:
    """The layers that one condition lets through; None where it does not say."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        parts = [_names(part, named, constants) for part in test.values]
        return None if None in parts else [name for part in parts for name in part or ()]
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        left, right = test.left, test.comparators[0]
        strings = constants.strings(right if text_of(left) == named else left)
        if isinstance(test.ops[0], (ast.Eq, ast.In)) and text_of(left) == named:
            if isinstance(test.ops[0], ast.In) and isinstance(right, ast.Constant):
                return None  # a part of a string
            return None if strings is None else [glob.escape(name) for name in strings]
        if isinstance(test.ops[0], ast.Eq) and text_of(right) == named and strings is not None:
            return [glob.escape(name) for name in strings]
        if isinstance(test.ops[0], ast.In) and text_of(right) == named and strings is not None and len(strings) == 1:
            return [f"*{glob.escape(strings[0])}*"]
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Attribute) and text_of(test.func.value) == named and test.args:
        strings = constants.strings(test.args[0])
        if test.func.attr in AFTER and strings:
            before, after = AFTER[test.func.attr]
            return [f"{before}{glob.escape(text)}{after}" for text in strings]
    return None
