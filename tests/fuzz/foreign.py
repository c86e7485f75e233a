"""Two kinds of what others made: ONNX models, opened as the toolkit opens them, and folders of images."""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from tests.fuzz.bounds import MEMORY, SECONDS, Hang
from tests.fuzz.mutate import mutant
from tests.fuzz.protobuf import changed_message
from toolkit.cli.console import PlainConsole
from toolkit.errors import GraphError, ToolkitError
from toolkit.graph.load.loading import load
from toolkit.images.dataset import open_data
from toolkit.recipe import Preprocess, Reference

SMALL = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
SIDE = Preprocess(size=(8, 8))


def models() -> list[bytes]:
    """A ResNet's kinds of layers, with a shortcut; and one that computes shapes, holds a function and is of float16 inside."""
    return [_convolutions(), _shapes()]


def _convolutions() -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random_ = np.random.default_rng(0)
    weights = {
        "w": random_.standard_normal((4, 3, 3, 3)), "scale": np.ones(4), "zero": np.zeros(4), "one": np.ones(4),
        "v": random_.standard_normal((4, 4, 3, 3)), "fc": random_.standard_normal((5, 4)), "b": np.zeros(5),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv1", pads=[1, 1, 1, 1], strides=[1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "zero", "zero", "one"], ["n"], name="bn1", epsilon=1e-5),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "v"], ["d"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "p"], ["s"], name="add"),
        helper.make_node("GlobalAveragePool", ["s"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc", "b"], ["logits"], name="fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["scores"], name="softmax", axis=-1),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "net", [image], [scores], tensors)
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    onnx.checker.check_model(made)
    return made


def _shapes() -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    swish = helper.make_function(
        "own", "Swish", ["x"], ["y"],
        [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    weight = np.random.default_rng(0).standard_normal((192, 7)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["input"], ["half"], name="cast", to=TensorProto.FLOAT16),
        helper.make_node("Shape", ["half"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "first"], ["n"], name="gather", axis=0),
        helper.make_node("Concat", ["n", "rest"], ["wanted"], name="concat", axis=0),
        helper.make_node("Reshape", ["half", "wanted"], ["flat"], name="reshape"),
        helper.make_node("MatMul", ["flat", "w"], ["m"], name="fc"),
        helper.make_node("Swish", ["m"], ["h"], name="swish", domain="own"),
        helper.make_node("Cast", ["h"], ["logits"], name="back", to=TensorProto.FLOAT),
    ]
    tensors = [
        numpy_helper.from_array(np.array([0]), "first"), numpy_helper.from_array(np.array([-1]), "rest"),
        numpy_helper.from_array(weight, "w"),
    ]  # fmt: skip
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 7])
    graph = helper.make_graph(nodes, "net", [image], [logits], tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[swish]).SerializeToString()
    onnx.checker.check_model(made)
    return made


def changed_model(data: bytes, seed: int) -> bytes:
    """Three of four mutants are still protobuf, with one to three fields changed."""
    if seed % 4 == 0:
        return mutant(data, seed)
    import onnx

    model, dice = onnx.ModelProto.FromString(data), random.Random(seed)
    for _ in range(dice.choice((1, 1, 2, 3))):
        changed_message(model, dice)
    made: bytes = model.SerializeToString()
    return made


def open_model(path: Path) -> None:
    """As `toolkit.graph.load.child` opens it. A death of the child is a refusal, as it is there; too much time is a Hang."""
    code, word = _in_child(lambda: load(path, SMALL, Reference(onnx=str(path))))
    if code == -signal.SIGXCPU:
        raise Hang
    if code == 0 and not word:
        return
    if code == 0:
        raise AssertionError(word)
    raise GraphError(f"{path} ended the process that opened it (exit {code})")


def _in_child(work: Callable[[], object]) -> tuple[int, str]:
    """The exit code of a forked child, and what it says is wrong; nothing where it is answered or refused."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _limit()
        word = ""
        try:
            work()
        except (ToolkitError, MemoryError):  # the latter is answered by a sentence in `child.py`
            pass
        except BaseException as error:
            word = f"{type(error).__name__}: {error}"[:300]
        os.write(writing, word.encode(errors="replace"))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        word = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), word


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # data and stack
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS), int(SECONDS) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silence = os.open(os.devnull, os.O_WRONLY)  # ONNX Runtime writes to both
    os.dup2(silence, 1)
    os.dup2(silence, 2)


KINDS = ("png", "text", "nothing", "fifo", "loop", "up", "dead", "device", "folder", "link", "locked")
NAMES = (
    "a", "b", "0", "1", "007", "²", "-1", "1e3", "n01440764", "[/x]", "x\ny", "\x1b[2J", "Thumbs.db", ".a", "ä", "a.png",
    "C.PNG", " ",
)  # fmt: skip


def folders() -> list[bytes]:
    """Folders of images, described a line an entry: KIND PATH."""
    return [
        b"png a/1.png\npng a/2.png\npng b/1.png\npng b/deep/2.jpg\ntext b/notes.txt\n",
        b"png 1.png\npng 2.png\nlink 3.png\n",
        b"png 0/x.png\nloop 0/again\nfifo 1/pipe.png\npng 1/x.bmp\ndead 1/y.png\n",
    ]


def changed_folder(data: bytes, seed: int) -> bytes:
    """Entries added, renamed and taken away; one mutant in four is changed as bytes."""
    if seed % 4 == 0:
        return mutant(data, seed)
    dice, lines = random.Random(seed), data.decode().splitlines()
    for _ in range(dice.choice((1, 2, 4, 8))):
        path = "/".join(dice.choice(NAMES) for _ in range(dice.choice((1, 1, 2, 2, 3))))
        line = f"{dice.choice(KINDS)} {path}{dice.choice(('', '.png', '.jpg', '.gif'))}".replace("\n", "\\n")
        lines.insert(dice.randint(0, len(lines)), line)
        if len(lines) > 1 and dice.random() < 0.4:
            lines.pop(dice.randrange(len(lines)))
    return "\n".join(lines).encode()


def read_images(path: Path) -> None:
    """Lay the folder out beside its description and read all of it, as a recipe's `data`, with and without class names."""
    root = path.parent / "apart" / "from" / "images"  # a link up leads no further than `apart`
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for line in path.read_bytes().split(b"\n")[:200]:
        kind, _, name = line.partition(b" ")
        try:
            _lay(kind.decode(errors="replace"), Path(os.fsdecode(os.fsencode(root) + b"/" + name.replace(b"\\n", b"\n"))), root)
        except (OSError, ValueError):  # no name for a file, or one that is there
            continue
    for classes in (None, ("a", "b")):
        try:
            images = open_data(str(root), SIDE, classes=classes)
            _ = images.sha256, images.digests, images.name(0)
            PlainConsole(file=io.StringIO()).print(*images.remarks)
            msgspec.json.encode((images.remarks, images.classes))  # as a manifest keeps them
            for batch in images.batches(2):
                assert batch.shape[1:] == (3, 8, 8)
        except ToolkitError as error:
            str(error).encode()


def _lay(kind: str, path: Path, root: Path) -> None:
    if os.path.lexists(path) or not path.resolve().is_relative_to(root.resolve()):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind in _LINKS:
        path.symlink_to(_LINKS[kind])
    else:
        path.write_bytes({"png": _PNG, "text": b"words", "locked": _PNG}.get(kind, b""))
        path.chmod(0 if kind == "locked" else 0o644)


_LINKS = {"loop": "..", "up": "../..", "dead": "nowhere", "device": "/dev/zero", "link": "1.png"}
_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a73"
    "0000001649444154789c63e40c38c1c0c0c0c4c0c0c0c0c000000cf70125d6c59a9f0000000049454e44ae426082"
)
