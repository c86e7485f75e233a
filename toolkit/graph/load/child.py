"""The child of `apart.py`: it limits itself, opens the file and leaves what it found in the folder that it was given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import onnx_ir as ir

from toolkit.errors import GraphError, ToolkitError
from toolkit.graph.load.apart import ANSWER, CANNOT_WRITE, GRAPH, ORIGINAL, REQUEST, LoadAnswer, LoadRequest
from toolkit.graph.load.loading import as_it_stands, load

COPIES = 10  # of the file's bytes: as stored, as arrays, folded, converted, serialized, and what ONNX Runtime makes of them
SPEED = 4_000_000  # bytes of a file that a second of computing is allowed for


def limiter(memory: int, seconds: int) -> Callable[[int], None]:
    """A function that limits this process as a file of so many bytes may need. Windows has no such limits."""
    try:
        import resource
    except ImportError:
        return lambda size: None

    def limit(size: int) -> None:
        for kind, value in (
            (resource.RLIMIT_DATA, memory + COPIES * size),
            (resource.RLIMIT_CPU, seconds + size // SPEED),
            (resource.RLIMIT_CORE, 0),
        ):
            most = resource.getrlimit(kind)[1]
            with suppress(ValueError, OSError):  # a system that has no such limit
                resource.setrlimit(kind, (value if most == resource.RLIM_INFINITY else min(value, most), most))

    return limit


def main(folder: Path) -> None:
    """Read the request, answer it."""
    request = msgspec.msgpack.decode((folder / REQUEST).read_bytes(), type=LoadRequest)
    limit = limiter(request.memory, request.seconds)
    limit(0)
    path = Path(request.path)
    try:
        if request.preprocess is None:
            graph, broken = as_it_stands(path, limit)
            _save(graph, folder / GRAPH)
            answer = LoadAnswer(broken=broken)
        else:
            loaded = load(path, request.preprocess, request.reference, limit)
            _save(loaded.graph, folder / GRAPH)
            if loaded.original is not None:
                _save(loaded.original, folder / ORIGINAL)
            answer = LoadAnswer(facts=loaded.facts)
    except ToolkitError as error:
        answer = LoadAnswer(error=(type(error).__name__, error.what, error.remedy))
    except MemoryError:
        allowed = f"{request.memory / 1e9:.2g} GB and {COPIES} times its bytes"
        what = f"{path} needs more memory to open than a file of its size may: {allowed}"
        answer = LoadAnswer(error=(GraphError.__name__, what, "Export the model again"))
    partial = folder / f"{ANSWER}.partial"
    partial.write_bytes(msgspec.msgpack.encode(answer))
    partial.rename(folder / ANSWER)


def _save(model: ir.Model, path: Path) -> None:
    """Weights beside the graph: a file of protobuf ends at 2 GiB."""
    ir.save(model, path, external_data=f"{path.stem}.weights")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except OSError as fault:  # of its own folder: what is wrong with the file is in the answer
        print(fault.strerror or fault)
        sys.exit(CANNOT_WRITE)
