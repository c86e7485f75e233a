"""Files that were made to hurt: refused by the node or the tensor, in bounded memory and time; never another exception."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.graph.load.files import HOW, TensorProto, answers, helper, images, node, opened, scores, tensor, write
from toolkit.errors import GraphError
from toolkit.graph.load import load, loading
from toolkit.graph.load.apart import load_apart
from toolkit.graph.load.trial import trial
from toolkit.recipe import Reference

WHOLE = {name: tensor(name, value, np.int64) for name, value in
         {"huge": [10**9], "zero": 0, "tera": 2**40, "step": 1, "rows": [50_000, 1], "columns": [1, 50_000], "axis": [1],
          "spread": [1, 10**9, 4]}.items()}  # fmt: skip
MAX = [node("ReduceMax", ["big"], ["peak"], keepdims=0), node("Add", ["scores", "peak"], ["out"])]
BOMBS: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "ConstantOfShape": ([node("ConstantOfShape", ["huge"], ["big"], name="bomb"), *MAX], "constant of 4 GB"),
    "Range": (
        [node("Range", ["zero", "tera", "step"], ["r0"], name="bomb"), node("Cast", ["r0"], ["big"], to=1), *MAX],
        "constant of 8.8e",
    ),
    "Expand": ([node("Expand", ["one", "huge"], ["big"], name="bomb"), *MAX], "constant of 4 GB"),
    "Tile": ([node("Tile", ["ones", "huge"], ["big"], name="bomb"), *MAX], "constant of 12 GB"),
    "MatMul": (
        [
            node("ConstantOfShape", ["rows"], ["a"]),
            node("ConstantOfShape", ["columns"], ["b0"]),
            node("MatMul", ["a", "b0"], ["big"], name="bomb"),
            *MAX,
        ],
        "constant of 10 GB",
    ),
    "Expand of an activation": (
        [
            node("Unsqueeze", ["scores", "axis"], ["u"]),
            node("Expand", ["u", "spread"], ["e"], name="bomb"),
            node("ReduceMax", ["e", "axis"], ["out"], keepdims=0),
        ],
        "one image would need 16 GB",
    ),
    "a node that no output needs": (
        [node("ConstantOfShape", ["huge"], ["big"], name="bomb"), node("Relu", ["scores"], ["out"])],
        "",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_a_user_opens_it(opened_by_forks, monkeypatch):
    monkeypatch.setattr("toolkit.graph.load.apart._run", opened_by_forks)


def bomb(path: Path, kind: str) -> Path:
    more = [*WHOLE.values(), tensor("one", [1.0]), tensor("ones", [1.0, 1.0, 1.0])]
    return write(path, BOMBS[kind][0], output="out", more=more)


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_would_fill_the_memory_is_refused_by_its_node(tmp_path: Path, kind: str) -> None:
    path, words = bomb(tmp_path / "m.onnx", kind), BOMBS[kind][1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if words:
        with pytest.raises(GraphError, match=f"'bomb' would .*{words}|'bomb' {words}"):
            opened(path)
    else:
        assert len(opened(path).graph.graph)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def doubling(path: Path, steps: int = 24, *, itself: bool = False) -> Path:
    """Functions that call the one before twice: 2^24 operators in 1.6 kB."""
    write(path, [node(f"f{steps}", ["scores"], ["out"], domain="f")], output="out", domains=[("f", 1)])
    proto, opsets = onnx.load(path), [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    first = node("f0", ["x"], ["y"], domain="f") if itself else node("Relu", ["x"], ["y"])
    proto.functions.append(helper.make_function("f", "f0", ["x"], ["y"], [first], opsets))
    for i in range(1, steps + 1):
        calls = [node(f"f{i - 1}", ["x"], ["t"], domain="f"), node(f"f{i - 1}", ["t"], ["y"], domain="f")]
        proto.functions.append(helper.make_function("f", f"f{i}", ["x"], ["y"], calls, opsets))
    path.write_bytes(proto.SerializeToString())
    return path


def test_functions_that_double_are_counted_before_they_are_expanded(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(GraphError, match=r"function 'f\d+' .* expands to more than 100,000 operators"):
        opened(doubling(tmp_path / "m.onnx"))
    with pytest.raises(GraphError, match=r"function 'f0' of .* calls itself"):
        opened(doubling(tmp_path / "m.onnx", 1, itself=True))
    assert time.monotonic() - start < 30
    batch = images() + 1
    np.testing.assert_allclose(answers(opened(doubling(tmp_path / "m.onnx", 4)), batch), np.maximum(scores(batch), 0), atol=1e-5)


def changed(path: Path, change: Any) -> Path:
    proto = onnx.load(write(path))
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


CHANGES: dict[str, tuple[Any, str]] = {
    "no output": (lambda p: p.graph.ClearField("output"), "has no output"),
    "no input": (lambda p: p.graph.ClearField("input"), "has no input"),
    "no node": (lambda p: p.graph.ClearField("node"), "has an empty graph"),
    "unknown type": (lambda p: setattr(p.graph.initializer[0], "data_type", 99), "tensor 'w' .* has type 99"),
    "no type": (lambda p: setattr(p.graph.initializer[0], "data_type", 0), "tensor 'w' .* has type 0"),
    "too few bytes": (lambda p: p.graph.initializer[0].dims.append(10**9), r"tensor 'w' .* 648 bytes, not 648,000,000,000"),
    "negative shape": (lambda p: p.graph.initializer[0].dims.__setitem__(0, -6), r"tensor 'w' .* has shape \[-6"),
    "twice": (lambda p: p.graph.initializer.append(p.graph.initializer[0]), "two tensors 'w'"),
    "from nowhere": (lambda p: p.graph.node[1].input.__setitem__(0, "gone"), "Relu 'relu' reads 'gone'"),
    "a circle": (lambda p: p.graph.node[0].input.__setitem__(0, "r"), "form a cycle"),
    "no opset": (lambda p: p.ClearField("opset_import"), "names no opset"),
    "no such attribute": (lambda p: p.graph.node[0].attribute.append(helper.make_attribute("zzz", 1)), "."),
    "pads of a string": (lambda p: p.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", "xx")), "."),
    "sparse": (
        lambda p: p.graph.sparse_initializer.append(
            helper.make_sparse_tensor(tensor("s", [1.0]), tensor("i", [0], np.int64), [10**12])
        ),
        "sparse tensor 's'",
    ),
    "quantized type": (lambda p: setattr(p.graph.initializer[0], "data_type", TensorProto.COMPLEX64), "648 bytes, not"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_that_contradicts_itself_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    change, words = CHANGES[kind]
    with pytest.raises(GraphError, match=words):
        opened(changed(tmp_path / "m.onnx", change))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89HDF\r\n\x1a\n", "HDF5 file, as Keras writes"),
        (b"PK\x03\x04 and more", "zip archive"),
        (b"\x1c\0\0\0TFL3\0\0\0\0", "TensorFlow Lite"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"", "holds nothing"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(GraphError, match=words):
        opened(tmp_path / "m.onnx")


def test_a_graph_beyond_two_gib_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Weights in a file of holes beside it: neither time nor memory is spent on them."""
    path = write(tmp_path / "m.onnx")
    proto = onnx.load(path)
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[:] = [6, 100_000_000]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    path.write_bytes(proto.SerializeToString())
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(2_400_000_000)
    start = time.monotonic()
    with pytest.raises(GraphError, match=r"600,000,028 values, 2\.4 GB in float32"):
        opened(path)
    assert time.monotonic() - start < 10


def test_folders_and_pipes_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(GraphError, match="not a regular file"):
            opened(path)


def test_mutants_are_graph_errors_or_graphs(tmp_path: Path) -> None:
    """Bytes changed, cut out and put in, in one process: never another exception."""
    whole, random = write(tmp_path / "m.onnx").read_bytes(), np.random.default_rng(7)
    path, refused = tmp_path / "mutant.onnx", 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(int(random.integers(1, 6))):
            at, kind = int(random.integers(0, len(data))), int(random.integers(0, 3))
            if kind == 0:
                data[at] = int(random.integers(0, 256))
            elif kind == 1:
                del data[at : at + int(random.integers(1, 20))]
            else:
                data[at:at] = random.integers(0, 256, int(random.integers(1, 9))).astype(np.uint8).tobytes()
        path.write_bytes(bytes(data))
        try:
            load(path, HOW)
        except GraphError:
            refused += 1
    assert refused > 60


def reference(path: Path) -> Reference:
    return Reference(onnx=str(path))


def test_the_child_gives_what_the_process_itself_would(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [node("Softmax", ["scores"], ["p0"]), node("ArgMax", ["p0"], ["out"], axis=1)],
                 outputs=[helper.make_tensor_value_info("out", TensorProto.INT64, None)])  # fmt: skip
    here, there = opened(path), load_apart(path, HOW, reference(path))
    assert here.facts == there.facts
    np.testing.assert_array_equal(answers(here, images()), answers(there, images()))
    assert there.original is not None
    with pytest.raises(GraphError, match="'bomb' would compute a constant of 4 GB"):
        load_apart(bomb(path, "Expand"), HOW, reference(path))


def test_a_child_without_memory_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    with pytest.raises(GraphError, match=r"needs more memory to open|ended the process that opened it"):
        load_apart(path, HOW, reference(path), memory=30_000_000)


def test_a_child_without_time_is_an_error(tmp_path: Path) -> None:
    """A loop that never ends, once it is let past the checks: what a library does not end, the kernel does."""
    script = "import toolkit.graph.load.child as c; c.limiter(1 << 30, 1)(0)\nwhile True: pass"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], env=env, timeout=60, check=False)
    assert done.returncode == -24


def test_what_no_output_needs_is_not_run_in_the_file_itself_either(tmp_path: Path) -> None:
    """ONNX Runtime runs such operators: the reference is the file, and would fill the memory of this process."""
    loaded = opened(bomb(tmp_path / "m.onnx", "a node that no output needs"))
    assert loaded.original is not None
    assert [node.op_type for node in loaded.original.graph if node.name == "bomb"] == []
    assert "operators that no output needs are left out, of the reference too: 1" in loaded.facts.notes
    assert opened(write(tmp_path / "m.onnx")).original is None


def test_a_branch_that_is_never_taken_is_tried_where_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime computes the constants of both."""
    tried = []
    monkeypatch.setattr(loading, "trial", lambda *given: tried.append(given[5]) or trial(*given))
    gives = {name: helper.make_tensor_value_info(f"{name}2", 1, None) for name in ("scores", "big")}
    ends = [helper.make_graph([node("Identity", [name], [f"{name}2"])], name, [], [end]) for name, end in gives.items()]
    choice = helper.make_node("If", ["yes"], ["out"], then_branch=ends[0], else_branch=ends[1])
    end = [node("Relu", ["scores"], ["big"]), choice]
    opened(write(tmp_path / "m.onnx", end, output="out", more=[tensor("yes", True, np.bool_)]))
    opened(write(tmp_path / "m.onnx"))
    assert tried == [False, True]
