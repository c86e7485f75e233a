"""The house: imports go down a floor, never up; foreign libraries stay in the rooms that are theirs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "toolkit"
FLOORS = {
    "__main__": 12,
    "cli": 11,
    "report": 10,
    "tuning": 9,
    "why": 9,
    "diff": 9,
    "decoding": 9,
    "migrate": 9,
    "finetune": 9,
    "measure": 9,
    "draft": 9,
    "orders": 9,
    "api": 10,
    "insight": 9,
    "inspection": 9,
    "pipeline": 8,
    "trip": 8,
    "settle": 8,
    "refit": 8,
    "handoff": 8,
    "serve": 8,
    "ray": 8,
    "engine": 7,
    "reference": 6,
    "graph": 5,
    "doctor": 5,
    "calibration": 4,
    "backends": 4,
    "testing": 4,
    "harness": 3,
    "__init__": 0,
    "runtime": 3,
    "packaged": 2,
    "images": 2,
    "manifest": 2,
    "outputs": 2,
    "onnxfile": 2,
    "recipe": 1,
    "disk": 1,
    "types": 1,
    "cpu": 0,
    "errors": 0,
}
HOMES = {
    "torch": {"reference", "finetune", "graph/export.py"},
    "safetensors": {"reference", "finetune"},
    "onnxruntime": {"backends", "doctor.py", "migrate/flat.py"},
    "tensorrt": {"backends", "doctor.py"},
    "tensorrt_rtx": {"backends", "doctor.py"},
    "openvino": {"backends", "doctor.py"},
    "cuda": {"runtime"},
    "cryptography": {"engine"},
    "cyclonedx": {"engine"},
    "packageurl": {"engine"},
    "pycuda": {"runtime"},
    "onnx": {"graph", "backends/onnxruntime/epcontext.py"},
    "onnx_ir": {"graph", "calibration/pieces.py", "reference", "pipeline.py", "trip.py", "engine", "tuning", "onnxfile.py"}
    | {"finetune", "settle.py", "refit.py", "why", "diff", "migrate"},
    "onnxscript": {"graph"},
    "numba": {"calibration"},
    "threadpoolctl": {"graph"},
    "typer": {"cli"},
    "rich": {"cli", "report"},
    "mlperf_loadgen": {"harness"},
    "pynvml": {"harness"},
    "tritonclient": {"handoff"},
    "uvicorn": {"serve"},
    "prometheus_client": {"serve"},
    "python_multipart": {"serve"},
    "ray": {"ray"},
    "pyarrow": {"ray"},
    "PIL": {"images", "report", "runtime", "decoding"},
    "cv2": {"decoding"},
    "torchvision": {"decoding"},
    "tempfile": {"disk/drafts.py"},  # a temporary folder that `scratch` did not make is never swept after a kill
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
            if node.module.partition(".")[0] == "toolkit":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner(path: Path) -> set[str]:
    """The rooms that a file reaches into."""
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("toolkit.")}
    return {name for name in rooms if name in FLOORS} - {room(path)}


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in files()} - set(FLOORS) == set()


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_goes_up(path: Path) -> None:
    assert {name for name in inner(path) if FLOORS[name] > FLOORS[room(path)]} == set()


def test_rooms_on_one_floor_do_not_import_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in files():
        graph.setdefault(room(path), set()).update(name for name in inner(path) if FLOORS[name] == FLOORS[room(path)])
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_files_do_not_import_in_a_circle() -> None:
    """Those of one room neither, and not inside functions; only for the type checker they may."""
    parts = {path: ("toolkit", *path.relative_to(PACKAGE).with_suffix("").parts) for path in files()}
    modules = {".".join(names).removesuffix(".__init__"): path for path, names in parts.items()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = set(imports(path)) & modules.keys()
        graph[name] = {other for other in found if not any(one.startswith(f"{other}.") for one in found)} - {name}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(("reader", "read"), [("tests", "benchmarks"), ("benchmarks", "tests"), ("toolkit", "benchmarks|tests")])
def test_no_test_imports_a_benchmark_and_no_benchmark_a_test(reader: str, read: str) -> None:
    found = {name.split(".")[0] for path in (PACKAGE.parent / reader).rglob("*.py") for name in imports(path)}
    assert found & set(read.split("|")) == set()


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_foreign_libraries_stay_at_home(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    places = {str(relative), relative.parts[0]}
    strays = {name.split(".")[0] for name in imports(path)} & set(HOMES)
    assert {name for name in strays if not HOMES[name] & places} == set()
