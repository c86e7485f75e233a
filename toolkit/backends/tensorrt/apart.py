"""A build in a process of its own: the same input gives the same bytes, and a crash costs an error and not the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

import toolkit
from toolkit import errors
from toolkit.backends.tensorrt.build import Built
from toolkit.backends.tensorrt.library import Library
from toolkit.disk import cache
from toolkit.disk.drafts import scratch
from toolkit.disk.files import sha256_bytes
from toolkit.errors import BackendError
from toolkit.recipe import Build
from toolkit.types import Frozen, Target

CHILD = "toolkit.backends.tensorrt.child"
# Whatever else moves what the library allocates: hash seeds, threads that numpy's libraries start, large blocks that glibc maps
# and gives back to the system in an order that depends on time, and small ones that one thread of the library frees for another.
STEADY = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535",
}


class BuildRequest(Frozen, frozen=True):
    """What the child is to build."""

    data: bytes
    build: Build
    target: Target


class Refusal(Frozen, frozen=True):
    """A ToolkitError on its way to the parent."""

    kind: str
    what: str
    remedy: str | None


class BuildAnswer(Frozen, frozen=True):
    """Just one of the two is set."""

    built: Built | None = None
    refusal: Refusal | None = None


def build_apart(library: Library, data: bytes, build: Build, target: Target) -> Built:
    """As `build_plan`, in a child process, or what an earlier build of the same request gave (`cache.py`).

    Raises what `build_plan` raises, and BackendError where the child dies.
    """
    request = msgspec.msgpack.encode(BuildRequest(data=data, build=build, target=target))
    key = sha256_bytes(f"{library.package} {library.version}\n".encode(), request)
    kept = cache.find("plans", key)
    if kept is not None:
        return msgspec.msgpack.decode(kept, type=Built)
    built = _build_in_child(library, request, target)
    cache.keep("plans", key, msgspec.msgpack.encode(built))
    return built


def _build_in_child(library: Library, request: bytes, target: Target) -> Built:
    with scratch() as folder:
        question, reply = folder / "request", folder / "answer"
        question.write_bytes(request)
        command = [sys.executable, "-m", CHILD, str(question), str(reply)]
        done = subprocess.run(command, env=_environment(), capture_output=True, check=False)
        if not reply.is_file():
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
            what = f"{library.name} {library.version} crashed while it built for {target} (exit {done.returncode}): {said[0]}"
            raise BackendError(what, remedy="Build again; if it crashes again, report the recipe")
        answer = msgspec.msgpack.decode(reply.read_bytes(), type=BuildAnswer)
    if answer.refusal is not None:
        raise getattr(errors, answer.refusal.kind)(answer.refusal.what, remedy=answer.refusal.remedy)
    assert answer.built is not None
    return answer.built


def _environment() -> dict[str, str]:
    """The child finds this very toolkit, wherever it lies, and lays out its memory like every child before it."""
    path = [str(Path(toolkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **STEADY, "PYTHONPATH": os.pathsep.join(filter(None, path))}
