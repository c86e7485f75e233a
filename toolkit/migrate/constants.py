"""Constants: what the text of a Python file says of a number or a list, without running any of it."""

from __future__ import annotations

import ast
import operator
from functools import lru_cache
from typing import Any

OPERATORS: dict[type[ast.operator], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.LShift: operator.lshift, ast.Pow: operator.pow,
}  # fmt: skip
MOST = 1 << 62  # beyond it no size, level or batch lies; powers and shifts are held to an exponent of 62
DEPTH = 32


@lru_cache(maxsize=1 << 12)  # a condition is told for each flag that hangs on it
def text_of(node: ast.AST) -> str:
    """The expression on one line."""
    try:
        return " ".join(ast.unparse(node).split())
    except ValueError:  # a number of more digits than Python writes
        return "..."


class Constants:
    """Names that a file binds just once, wherever it does."""

    def __init__(self, tree: ast.Module) -> None:
        bound: dict[str, list[ast.expr | None]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name):
                            bound.setdefault(name.id, []).append(node.value if name is target else None)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                bound.setdefault(node.target.id, []).append(node.value)
            elif isinstance(node, (ast.AugAssign, ast.For, ast.NamedExpr, ast.comprehension)):
                for name in ast.walk(node.target):
                    if isinstance(name, ast.Name):
                        bound.setdefault(name.id, []).append(None)
            elif isinstance(node, ast.arg):  # a parameter: its value is the caller's
                bound.setdefault(node.arg, []).append(None)
        self._bound = {name: values[0] for name, values in bound.items() if len(values) == 1 and values[0] is not None}
        self._numbers: dict[ast.expr, int] = {}  # else `a = b + b; b = c + c; ...` doubles at every step

    def number(self, node: ast.expr, depth: int = 0) -> int | None:
        """The whole number that an expression of constants is; None where only a run would tell."""
        found = self._numbers.get(node)
        if depth > DEPTH or found is not None:
            return found
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and abs(node.value) < MOST:
            found = int(node.value) if node.value == int(node.value) else None
        elif isinstance(node, ast.Name) and node.id in self._bound:
            found = self.number(self._bound[node.id], depth + 1)
        elif isinstance(node, ast.Call) and text_of(node.func) == "int" and len(node.args) == 1:
            found = self.number(node.args[0], depth + 1)
        elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            left = self.number(node.left, depth + 1)
            right = None if left is None else self.number(node.right, depth + 1)
            if left is not None and right is not None and (0 <= right <= 62 or not isinstance(node.op, (ast.Pow, ast.LShift))):
                found = None if isinstance(node.op, ast.FloorDiv) and right == 0 else OPERATORS[type(node.op)](left, right)
        if found is None or abs(found) >= MOST:
            return None
        self._numbers[node] = found
        return found

    def first(self, node: ast.expr, depth: int = 0) -> int | None:
        """The first size of a shape: `(1, 3, h, w)`, `[batch] + list(shape[1:])`, or a name for either."""
        if depth > DEPTH:
            return None
        if isinstance(node, (ast.Tuple, ast.List)) and node.elts:
            return self.number(node.elts[0])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.first(node.left, depth + 1)
        if isinstance(node, ast.Name) and node.id in self._bound:
            return self.first(self._bound[node.id], depth + 1)
        if isinstance(node, ast.Call) and text_of(node.func) in ("tuple", "list", "trt.Dims") and len(node.args) == 1:
            return self.first(node.args[0], depth + 1)
        return None

    def sizes(self, node: ast.expr) -> tuple[int | None, ...]:
        """Each size of a shape that is written out, None where only a run would tell; nothing where that is so of how many."""
        while isinstance(node, ast.Name) and isinstance(self._bound.get(node.id), (ast.Tuple, ast.List)):
            node = self._bound[node.id]
        if isinstance(node, ast.Call) and text_of(node.func) in ("tuple", "list", "trt.Dims") and len(node.args) == 1:
            node = node.args[0]
        if not isinstance(node, (ast.Tuple, ast.List)) or any(isinstance(size, ast.Starred) for size in node.elts):
            return ()
        return tuple(self.number(size) for size in node.elts)

    def strings(self, node: ast.expr, depth: int = 0) -> list[str] | None:
        """The strings of a list, tuple or set of constants, or of a name for one; a string alone is a list of one."""
        if depth > DEPTH:
            return None
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [node.value]
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            values = [item.value for item in node.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            return values if len(values) == len(node.elts) else None
        if isinstance(node, ast.Name) and node.id in self._bound:
            return self.strings(self._bound[node.id], depth + 1)
        return None
