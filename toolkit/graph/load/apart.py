"""A file from outside is opened in a process of its own: one that takes all memory, or never ends, costs no more than an error.

The kernel limits the child's memory and its seconds of computing; both limits grow with the file. The budgets that `constants.py`
and `budget.py` check before anything is allocated name the node; the limits are for what they miss.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import onnx_ir as ir

import toolkit
from toolkit import errors
from toolkit.disk.drafts import scratch
from toolkit.errors import GraphError
from toolkit.graph.load.loading import Facts, LoadedGraph
from toolkit.recipe import Preprocess, Reference
from toolkit.types import Frozen

MEMORY = 2 << 30  # bytes, beside ten times the file's: several copies of the weights exist for a while
SECONDS = 60  # of computing, beside one for every 4 MB
PATIENCE = 20  # times as long by the clock: the machine may be busy, and the file large
STEADY = {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CANNOT_WRITE = 73  # the child's exit code (EX_CANTCREAT)
REQUEST, ANSWER, GRAPH, ORIGINAL = "request", "answer", "graph.onnx", "original.onnx"


class LoadRequest(Frozen, frozen=True):
    """What the child is to open; without `preprocess` as it stands, no matter what it is for."""

    path: str
    memory: int
    seconds: int
    preprocess: Preprocess | None = None
    reference: Reference | None = None


class LoadAnswer(Frozen, frozen=True):
    """The facts, or why a graph that stands as it is does not run; or else an error's class, what it says and its remedy."""

    facts: Facts | None = None
    broken: str = ""
    error: tuple[str, str, str | None] | None = None


def load_apart(
    path: Path, preprocess: Preprocess, reference: Reference, *, memory: int = MEMORY, seconds: int = SECONDS
) -> LoadedGraph:
    """As `load`, in a child process with limits. Raises GraphError, also where the child reaches one."""
    where = str(path.absolute())
    request = LoadRequest(path=where, memory=memory, seconds=seconds, preprocess=preprocess, reference=reference)
    graph, original, answer = _opened(path, request)
    assert answer.facts is not None
    return LoadedGraph(graph, answer.facts, original)


def read_apart(path: Path, *, memory: int = MEMORY, seconds: int = SECONDS) -> tuple[ir.Model, str]:
    """As `as_it_stands`, in a child process with limits. Raises GraphError, also where the child reaches one."""
    graph, _, answer = _opened(path, LoadRequest(path=str(path.absolute()), memory=memory, seconds=seconds))
    return graph, answer.broken


def _opened(path: Path, request: LoadRequest) -> tuple[ir.Model, ir.Model | None, LoadAnswer]:
    """The graph, the file as it is to be run where that is another, and the rest of the child's answer."""
    with scratch() as folder:
        (folder / REQUEST).write_bytes(msgspec.msgpack.encode(request))
        code, said = _run(folder, PATIENCE * request.seconds)
        answer = folder / ANSWER
        if code == CANNOT_WRITE:
            what = f"{path} cannot be opened, as there is no place for temporary files: {said}: '{folder.parent}'"
            raise GraphError(what, remedy="Make room there, or set TMPDIR to another folder")
        if not answer.is_file():
            raise _died(path, code)
        found = msgspec.msgpack.decode(answer.read_bytes(), type=LoadAnswer)
        if found.error is not None:
            kind, what, remedy = found.error
            raise getattr(errors, kind)(what, remedy=remedy)
        original = _take(folder / ORIGINAL) if (folder / ORIGINAL).exists() else None
        return _take(folder / GRAPH), original, found


def _run(folder: Path, seconds: float) -> tuple[int | None, str]:
    """The child's exit code, None where it had to be stopped; and its last word."""
    command = [sys.executable, "-m", "toolkit.graph.load.child", str(folder)]
    path = [str(Path(toolkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, **STEADY, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    try:
        done = subprocess.run(command, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout.decode(errors="replace").strip().rpartition("\n")[2]


def _take(path: Path) -> ir.Model:
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    return model


def _died(path: Path, code: int | None) -> GraphError:
    how = (
        "took longer to open than a file of its size may"
        if code in (None, -24)
        else f"ended the process that opened it (exit {code})"
    )
    return GraphError(f"{path} {how}", remedy="Export the model again; if you trust the file, look at it with Netron")
