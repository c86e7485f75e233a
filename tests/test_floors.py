"""The house: imports go down a floor, never up; foreign libraries stay in the rooms that are theirs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "toolkit"
FLOORS = {
    "__main__": 7,
    "cli": 6,
    "progress": 6,
    "pipeline": 5,
    "identity": 5,
    "measure": 5,
    "inspection": 5,
    "insight": 5,
    "tune": 5,
    "__init__": 4,
    "engine": 4,
    "report": 4,
    "graph": 4,
    "doctor": 4,
    "bench": 3,
    "calibration": 3,
    "reference": 3,
    "backends": 3,
    "packaged": 3,
    "runtime": 2,
    "images": 2,
    "pictures": 2,
    "manifest": 2,
    "onnxfile": 2,
    "recipe": 1,
    "types": 1,
    "cpu": 0,
    "errors": 0,
}
PROGRAMS = {"reference/qat.py": 6}  # run with `python -m`, imported by nobody: on top of the house, like the command line
HOMES = {
    "torch": {"reference", "graph/export.py"},
    "safetensors": {"reference"},
    "onnxruntime": {"backends", "doctor.py"},
    "tensorrt": {"backends", "doctor.py"},
    "tensorrt_rtx": {"backends", "doctor.py"},
    "openvino": {"backends", "doctor.py"},
    "cuda": {"runtime"},
    "pycuda": {"runtime"},
    "onnx": {"graph"},
    "onnx_ir": {"graph", "pipeline.py", "identity.py", "tune", "onnxfile.py", "reference/qat.py"},
    "onnxscript": {"graph"},
    "numba": {"calibration"},
    "typer": {"cli.py", "commands"},
    "rich": {"cli.py", "commands", "progress.py", "report", "reference/train.py", "reference/qat.py"},
    "mlperf_loadgen": {"bench"},
    "pynvml": {"bench"},
    "PIL": {"images.py", "pictures.py", "report", "runtime"},
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path, *, typing: bool = False) -> Iterator[str]:
    """Modules that a file imports; those only for the type checker are left out unless asked for."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.body:
                for inner in ast.walk(child):
                    inner.only_typing = True  # type: ignore[attr-defined]
        if getattr(node, "only_typing", False) and not typing:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "toolkit":
                yield from (f"toolkit.{alias.name}" for alias in node.names)


def inner(path: Path) -> set[str]:
    """The rooms that a file reaches into."""
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("toolkit.")}
    return {name for name in rooms if name in FLOORS} - {room(path)}


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in files()} - set(FLOORS) == set()


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_goes_up(path: Path) -> None:
    floor = PROGRAMS.get(str(path.relative_to(PACKAGE)), FLOORS[room(path)])
    assert {name for name in inner(path) if FLOORS[name] > floor} == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_nobody_imports_a_program(program: str) -> None:
    module = f"toolkit.{program.removesuffix('.py').replace('/', '.')}"
    assert [path for path in files() if module in set(imports(path, typing=True))] == []


def test_rooms_on_one_floor_do_not_import_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in files():
        graph.setdefault(room(path), set()).update(name for name in inner(path) if FLOORS[name] == FLOORS[room(path)])
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_foreign_libraries_stay_at_home(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    places = {str(relative), relative.parts[0]}
    strays = {name.split(".")[0] for name in imports(path)} & set(HOMES)
    assert {name for name in strays if not HOMES[name] & places} == set()
