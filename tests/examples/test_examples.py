"""Every example runs as its own first lines say, on an engine made here."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from toolkit.disk.files import sha256
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.types import TensorSpec

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The brightest channel wins: mean over the image, times the identity."""
    folder = tmp_path_factory.mktemp("engine")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32), "weights")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weights]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    Manifest(
        name="tiny",
        target="cpu",
        file="model.onnx",
        precision="fp32",
        inputs=(TensorSpec(name="images", dtype="float32", shape=("N", 3, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 3)),),
        profiles=(Profile(min=1, opt=1, max=8),),
        preprocess=Preprocess(size=(8, 8)),
        classes=("red", "green", "blue"),
        hashes={"file": sha256(folder / "model.onnx")},
        settings={"threads": 1},
    ).write(folder)
    return folder


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_classify(engine, tmp_path):
    for color in ("red", "blue"):
        Image.new("RGB", (20, 20), color).save(tmp_path / f"{color}.png")
    done = run("classify.py", engine, tmp_path / "red.png", tmp_path / "blue.png")
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["red", "blue"], done.stderr
    array, image = run("classify.py", engine).stdout.splitlines()
    assert (array.split()[0], image.split()[0]) == ("ndarray", "Image")
    assert array.split()[1:] == image.split()[1:]


def test_threads(engine):
    done = run("threads.py", engine, 3)
    assert "the same answers as alone" in done.stdout, done.stderr


def test_torch_tensors(engine):
    pytest.importorskip("torch")
    done = run("torch_tensors.py", engine)
    assert "cpu tensor -> logits [5, 3]" in done.stdout, done.stderr


def test_notebook(tmp_path):
    """The page of Python, as it stands."""
    pytest.importorskip("torch")
    done = run("notebook.py", tmp_path)
    assert "tiny-int8: accepted" in done.stdout, done.stderr
    assert done.stdout.endswith("logits [2, 10]\n")


def test_pycuda(engine):
    done = run("pycuda_app.py", engine)
    if done.returncode:
        assert done.stderr.startswith("PyCUDA is not here"), done.stderr


@pytest.mark.parametrize("name", ["classify.py", "threads.py"])
def test_an_engine_that_is_not_there_is_one_line(name, tmp_path):
    done = run(name, tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
