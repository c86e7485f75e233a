"""Files and functions that fit on a page or two."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE_LINES, FUNCTION_LINES = 300, 40


def test_files_are_short() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in (ROOT / "toolkit").rglob("*.py")
        if (n := len(p.read_text().splitlines())) > FILE_LINES
    }
    assert long == {}


def test_functions_are_short() -> None:
    long = {}
    for path in (ROOT / "toolkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert long == {}


def test_committed_text_names_no_machine() -> None:
    """Recipes, docs and results must make sense on any machine."""
    import subprocess

    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    hits = []
    for name in filter(None, names):
        path = ROOT / name
        if path.suffix in (".py", ".toml", ".md", ".json", ".txt", ".yml", ".html", ".svg", "") and path.is_file():
            text = path.read_text(errors="replace")
            hits += [f"{name}: {word}" for word in ("/work" + "/", "/root" + "/", "pypi" + "-more") if word in text]
    assert hits == []


def test_no_link_is_committed() -> None:
    """A link leads somewhere else on every machine; one called `.venv` would take the place of the real folder."""
    import subprocess

    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert [line for line in listed.splitlines() if line.startswith("120000")] == []
