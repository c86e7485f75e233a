"""Scripts outside the package name what the package has: a name that is moved or renamed is found before a user starts one.

They are read, and not imported."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for folder in ("benchmarks", "research", "examples") for path in (ROOT / folder).glob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None, str]]:
    """(module, name of it or None, what the script calls it)"""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name, alias.asname or alias.name) for alias in node.names)


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def has(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name) or is_module(f"{module}.{name}")


def defines(path: Path, name: str) -> bool:
    """Whether a script has it at its top; the script is not run."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return True
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(found, ast.Name) and found.id == name for target in targets for found in ast.walk(target)):
                return True
    return False


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_names_what_there_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing, modules = [], {}
    for module, name, called in imports(tree):
        first = module.partition(".")[0]
        script = path.parent / f"{first}.py"
        if first == "toolkit" and name is not None:
            if not has(module, name):
                missing.append(f"{module} has no {name}")
            elif is_module(f"{module}.{name}"):
                modules[called] = f"{module}.{name}"
        elif first in ("benchmarks", "research", "tests") and path.parent.name != first:
            missing.append(f"{module} is not on the path of a script in {path.parent.name}/")
        elif script.exists() and name is not None and not defines(script, name):
            missing.append(f"{script.name} has no {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if not has(module, node.attr):
                missing.append(f"{module} has no {node.attr}")
    assert missing == []
