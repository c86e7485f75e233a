"""An ONNX file as it lies on the disk -> a model whose tensors are whole and whose nodes are in order. Nothing is computed here.

1. The file is a regular file and ONNX; what it is instead is said, where it can be told.
2. Each tensor has a known type and as many bytes as its shape says. External data lies in regular files below the file's folder.
3. Functions, expanded into each other, stay below a number of nodes.
4. Nodes are sorted where they are not: some tools append what they add, and ONNX Runtime opens such files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from toolkit.disk.files import sha256, sha256_bytes
from toolkit.errors import GraphError

MOST_NODES = 100_000  # after functions are expanded; the largest classifiers have some thousand
MOST_BYTES = 1 << 31  # protobuf's own limit; weights beyond it go to external data
_FOREIGN = {
    b"\x89HDF": "an HDF5 file, as Keras writes: convert it with tf2onnx",
    b"PK\x03\x04": "a zip archive, as PyTorch and Keras save: export the model to ONNX first (torch.onnx.export, tf2onnx)",
    b"\x80\x02\x8a": "a PyTorch pickle: export the model to ONNX first (torch.onnx.export)",
    b"version ": "a Git LFS pointer and not the file itself: run git lfs pull",
    b"<!DOCTYP": "a web page: download the file itself",
}
_FOREIGN_AT_4 = {b"TFL3": "a TensorFlow Lite file", b"ORTM": "ONNX Runtime's own format: give the ONNX file it was made from"}
_FIELDS: dict[
    str, dict[int, int]
] = {  # where a tensor's values are when they are not raw bytes, and how many entries one value takes there
    "float_data": {onnx.TensorProto.FLOAT: 1, onnx.TensorProto.COMPLEX64: 2},
    "double_data": {onnx.TensorProto.DOUBLE: 1, onnx.TensorProto.COMPLEX128: 2},
    "int64_data": {onnx.TensorProto.INT64: 1},
    "uint64_data": {onnx.TensorProto.UINT32: 1, onnx.TensorProto.UINT64: 1},
    "string_data": {onnx.TensorProto.STRING: 1},
}


class File(NamedTuple):
    """`sha256` in hex: the file's; where it has external data, that of the hashes of all its files. `stored`: their bytes."""

    model: ir.Model
    sha256: str
    stored: int


def read(path: Path, sized: Callable[[int], None] = lambda size: None) -> File:
    """The model in a file. `sized` is told how many bytes it has, before tensors are read. Raises GraphError."""
    proto = _parse(path)
    files = _files(path, proto)
    stored = sum(file.stat().st_size for file in files)
    sized(stored)
    for owner, tensor in tensors(proto):
        _check_tensor(owner, tensor, path)
    _check_graph(proto, path)
    values = sum(math.prod(tensor.dims) for _, tensor in tensors(proto))
    if 4 * values >= MOST_BYTES:
        size = f"{values:,} values, {4 * values / 1e9:.3g} GB in float32"
        what = f"{path} has {size}: a graph is held in one protobuf message here, which ends at 2 GiB, external data or not"
        raise GraphError(what, remedy="Use a smaller variant of the model")
    _check_functions(proto, path)
    del proto.graph.value_info[:]  # shapes are inferred again, and what the file claims might be wrong
    for value in proto.graph.output:
        if not value.type.HasField("tensor_type"):
            value.ClearField("type")  # maps, which onnx-ir does not know
    proto.graph.name = proto.graph.name or "graph"  # onnx wants one, and ONNX Runtime does not
    base = _follow_links(proto, path)
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, base)
    ir.external_data.load_to_model(model)
    return File(_sorted(model, path), _digest(path, files), stored)


def digest_of(path: Path) -> str:
    """The hash that `read` would give of a file; its tensors are not read into memory. Raises GraphError."""
    return _digest(path, _files(path, _parse(path)))


def _files(path: Path, proto: onnx.ModelProto) -> list[Path]:
    return [path, *sorted({_external_file(owner, tensor, path) for owner, tensor in tensors(proto) if _is_external(tensor)})]


def _digest(path: Path, files: list[Path]) -> str:
    return sha256(path) if len(files) == 1 else sha256_bytes(*(sha256(file).encode() for file in files))


def _check_graph(proto: onnx.ModelProto, path: Path) -> None:
    if not proto.graph.node:
        raise GraphError(f"{path} has an empty graph: no operator in it", remedy="Export the model again")
    if proto.ir_version > onnx.IR_VERSION:
        what = f"{path} is of IR version {proto.ir_version}, and onnx {onnx.__version__} knows those up to {onnx.IR_VERSION}"
        raise GraphError(what, remedy="Update onnx and onnxruntime, or save the file with an older onnx")
    if not proto.graph.output or not proto.graph.input:
        raise GraphError(f"{path} has no {'input' if proto.graph.output else 'output'}", remedy="Export the model again")
    names = [tensor.name for tensor in proto.graph.initializer]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise GraphError(f"{path} is not a valid ONNX file: it holds two tensors '{twice}'", remedy="Export the model again")
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise GraphError(f"{path} holds the sparse tensor '{name}'", remedy="Store its weights as dense tensors")


def tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every tensor of a file, with the name of what holds it: itself, or the node that it is an attribute of."""
    yield from _tensors_of(proto.graph)
    for function in proto.functions:
        yield from _tensors_in(function.node)


def _tensors_of(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    yield from _tensors_in(graph.node)


def _tensors_in(nodes: Any) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in nodes:
        for attribute in node.attribute:
            name = f"{node.name or node.op_type}.{attribute.name}"
            if attribute.HasField("t"):
                yield name, attribute.t
            yield from ((name, tensor) for tensor in attribute.tensors)
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors_of(graph)


def not_onnx(path: Path, start: bytes, error: Exception) -> GraphError:
    """What a file that cannot be read is, as far as its first bytes tell."""
    known = next((what for magic, what in _FOREIGN.items() if start.startswith(magic)), _FOREIGN_AT_4.get(start[4:8]))
    if known:
        return GraphError(f"{path} is {known}")
    return GraphError(f"{path} is not a valid ONNX file: {_line(error)}", remedy="Fetch it, or export it, again")


def _parse(path: Path) -> onnx.ModelProto:
    if not path.exists():
        raise GraphError(f"there is no file {path}", remedy="Check `reference.onnx` in the recipe")
    if not path.is_file():
        raise GraphError(f"{path} is not a regular file", remedy="`reference.onnx` takes the path of an ONNX file")
    size = path.stat().st_size
    if size >= MOST_BYTES:
        remedy = "Save it with external data: onnx.save(model, path, save_as_external_data=True)"
        raise GraphError(f"{path} has {size:,} bytes, and no ONNX file can hold 2 GiB or more", remedy=remedy)
    data = b""
    try:
        data = path.read_bytes()
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (OSError, DecodeError, UnicodeDecodeError, ValueError) as error:
        raise not_onnx(path, data[:16], error) from error
    if not proto.opset_import:
        what = "holds nothing" if not data else "is not a valid ONNX file: it names no opset"
        raise GraphError(f"{path} {what}", remedy="Export the model again")
    return proto


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _external_file(name: str, tensor: onnx.TensorProto, path: Path) -> Path:
    """Rule 2: where a tensor's bytes lie."""
    folder, location = path.parent.resolve(), {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    file: Path = (folder / location).resolve()
    homes = (folder, path.resolve().parent)  # a cache of models keeps both files elsewhere, and links to them
    if not location or Path(location).is_absolute() or not any(file.is_relative_to(home) for home in homes):
        raise GraphError(f"tensor '{name}' of {path} is stored in '{location}', outside the folder of the ONNX file")
    if not file.is_file():
        raise GraphError(
            f"tensor '{name}' of {path} is stored in {location}, which does not exist", remedy=f"Put it beside {path.name}"
        )
    return file


def _follow_links(proto: onnx.ModelProto, path: Path) -> Path:
    """The folder that external data is read from; its locations are then those of the files that links lead to, in place:
    onnx-ir follows none, and a cache of models holds nothing else beside the file."""
    outside = [tensor for owner, tensor in tensors(proto) if _is_external(tensor)]
    folder = path.parent.resolve()
    if all(_external_file("", tensor, path).is_relative_to(folder) for tensor in outside):
        return path.parent
    home = path.resolve().parent
    for tensor in outside:
        file = _external_file("", tensor, path)
        next(entry for entry in tensor.external_data if entry.key == "location").value = os.path.relpath(file, home)
    return home


def _check_tensor(name: str, tensor: onnx.TensorProto, path: Path) -> None:
    """Rule 2. A tensor that says another size than it has would fail deep inside a library, or read beyond its end."""
    kind = tensor.data_type
    try:
        item = ir.DataType(kind).bitwidth if kind not in (0, onnx.TensorProto.STRING) else 0
    except (ValueError, KeyError, TypeError):
        kind = 0
    if kind == 0:
        raise GraphError(f"tensor '{name}' of {path} has type {tensor.data_type}, which ONNX does not define")
    if any(dim < 0 for dim in tensor.dims):
        raise GraphError(f"tensor '{name}' of {path} has shape {list(tensor.dims)}")
    count = math.prod(tensor.dims)
    want = -(-count * item // 8)
    if _is_external(tensor):
        _check_external(name, tensor, want, path)
        return
    if tensor.HasField("raw_data"):
        found, unit = len(tensor.raw_data), "bytes"
    else:
        field, entries = next(((f, kinds[kind]) for f, kinds in _FIELDS.items() if kind in kinds), ("int32_data", 1))
        found, unit = len(getattr(tensor, field)), "values"
        four_bits = 0 < item < 8  # two to an entry; a string has no width
        want = -(-count * item // 8) if four_bits else count * entries
    if found != want:
        shape = list(tensor.dims)
        raise GraphError(
            f"tensor '{name}' of {path} has shape {shape} and {found:,} {unit}, not {want:,}", remedy="Copy it again"
        )


def _check_external(name: str, tensor: onnx.TensorProto, want: int, path: Path) -> None:
    said = {entry.key: entry.value for entry in tensor.external_data}
    size = _external_file(name, tensor, path).stat().st_size
    try:
        offset, length = int(said.get("offset", 0)), int(said.get("length", want))
    except ValueError:
        offset, length = -1, -1
    if offset < 0 or length != want or offset + length > size:
        what = f"tensor '{name}' of {path} needs {want:,} bytes, and {said['location']} does not hold them where the file says"
        raise GraphError(what, remedy="Copy both files again")


def _check_functions(proto: onnx.ModelProto, path: Path) -> None:
    """Rule 3, before anything expands them: functions that call each other twice double at every step."""
    bodies = {(f.domain, f.name): f.node for f in proto.functions}
    running: set[tuple[str, str]] = set()

    @cache
    def size(key: tuple[str, str]) -> int:
        if key in running:
            raise GraphError(f"function '{key[1]}' of {path} calls itself", remedy="Export the model again")
        running.add(key)
        total = nodes(bodies[key])
        running.discard(key)
        if total > MOST_NODES:
            what = f"function '{key[1]}' of {path} expands to more than {MOST_NODES:,} operators"
            raise GraphError(what, remedy="Export the model without functions, or inline them")
        return total

    def nodes(body: Any) -> int:
        total = 0
        for node in body:
            key = (node.domain, node.op_type)
            total += size(key) if key in bodies else 1
            total += sum(nodes(g.node) for a in node.attribute for g in (*a.graphs, *([a.g] if a.HasField("g") else [])))
        return total

    if (total := nodes(proto.graph.node)) > MOST_NODES:
        raise GraphError(f"{path} has {total:,} operators once its functions are expanded, more than {MOST_NODES:,}")


def _sorted(model: ir.Model, path: Path) -> ir.Model:
    """Rule 4, and every tensor that is read comes from somewhere."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for value in node.inputs:
                if value is None or value.producer() or value.is_graph_input() or value.is_initializer():
                    continue
                who = f"{node.op_type} '{node.name}'" if node.name else node.op_type
                raise GraphError(f"{path}: {who} reads '{value.name}', which nothing in the file makes")
    try:
        model.graph.sort()
    except ValueError as error:
        raise GraphError(f"{path} is not a valid ONNX file: its operators form a cycle") from error
    return model
