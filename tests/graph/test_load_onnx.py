"""Bring your own ONNX: files that Caffe2 and PaddlePaddle wrote, and hostile ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.errors import GraphError
from toolkit.graph.load import load
from toolkit.graph.run import graph_runner
from toolkit.recipe import Preprocess, Reference

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
IMAGENET = Preprocess()


def original(path: Path, images: np.ndarray) -> np.ndarray:
    """The file as it came, an image at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0].reshape(1, -1) for image in images])


@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "densenet121", "shufflenet", "inception_v2"])
def test_a_file_of_caffe2_gets_a_free_batch(name: str) -> None:
    """Opset 9, batch 1 written into it, BatchNorm unfolded, initializers among the inputs."""
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip("this onnx wheel ships no light models")
    graph = load(path, IMAGENET).graph
    images = np.random.default_rng(1).uniform(-2, 2, (3, 3, 224, 224)).astype(np.float32)
    np.testing.assert_allclose(graph_runner(graph)(images), original(path, images), rtol=1e-3, atol=1e-5)
    assert str(graph.graph.inputs[0].shape) == "[N,3,224,224]"
    assert "BatchNormalization" not in {node.op_type for node in graph.graph}


def paddle() -> Path:
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        pytest.skip("rapidocr, whose wheel carries a classifier of PaddlePaddle, is not installed")
    return Path(spec.origin).parent / "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"


def test_a_file_of_paddlepaddle_keeps_its_answers() -> None:
    """MobileNetV3 with biases as Add, a free image size, and a softmax at its end."""
    path = paddle()
    graph = load(path, Preprocess(size=(48, 192), color="BGR")).graph
    images = np.random.default_rng(1).uniform(-1, 1, (3, 3, 48, 192)).astype(np.float32)
    np.testing.assert_allclose(graph_runner(graph)(images), original(path, images), rtol=1e-3, atol=1e-5)


def small(path: Path, **changes: object) -> Path:
    """A tiny classifier: NHWC in, two outputs, as a TensorFlow converter lays it out."""
    random = np.random.default_rng(0)
    given = {"dtype": TensorProto.FLOAT, "shape": ["N", 8, 8, 3], "inputs": 1, "outputs": 2, **changes}
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["features"]),
        helper.make_node("MatMul", ["features", "m"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("image", given["dtype"], given["shape"])]
    inputs += [helper.make_tensor_value_info(f"more{i}", TensorProto.FLOAT, [1]) for i in range(1, given["inputs"])]  # type: ignore[call-overload]
    batch = given["shape"][0]  # type: ignore[index]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, n]) for name, n in (("logits", 4), ("features", 6))]
    constants = {"w": random.normal(size=(6, 3, 3, 3)), "m": random.normal(size=(6, 4))}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([1, 6] if given["shape"][0] == 1 else [-1, 6]), "shape"))  # type: ignore[index]
    graph = helper.make_graph(nodes, "g", inputs, outputs[: given["outputs"]], tensors)  # type: ignore[misc]
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    proto.ir_version = 8
    onnx.save(proto, path)
    return path


NHWC = Preprocess(size=(8, 8), layout="NHWC")


@pytest.mark.parametrize("batch", ["N", 1])
def test_nhwc_and_one_of_several_outputs(tmp_path: Path, batch: object) -> None:
    path = small(tmp_path / "m.onnx", shape=[batch, 8, 8, 3])
    graph = load(path, NHWC, Reference(onnx=str(path), output="logits")).graph
    images = np.random.default_rng(1).normal(size=(5, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(graph_runner(graph)(images), original(path, images), rtol=1e-4, atol=1e-6)
    assert [value.name for value in graph.graph.outputs] == ["logits"]
    assert all(node.name for node in graph.graph)


@pytest.mark.parametrize(
    ("changes", "preprocess", "output", "words"),
    [
        ({}, NHWC, None, r"2 outputs: logits \[.N., 4\], features \[.N., 6\]"),
        ({}, NHWC, "nothing", "no output 'nothing'.*logits, features"),
        ({"outputs": 1}, Preprocess(size=(8, 8)), None, r"takes \[8, 8, 3\].*makes \[3, 8, 8\]"),
        ({"outputs": 1, "shape": ["N", 8, 24]}, NHWC, None, "not four dimensions|not valid ONNX"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, changes: dict[str, object], preprocess: Preprocess, output: str | None, words: str
) -> None:
    with pytest.raises(GraphError, match=words):
        load(small(tmp_path / "m.onnx", **changes), preprocess, Reference(onnx="m.onnx", output=output))


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    """Truncated, bits flipped, not ONNX at all: never another exception, never a crash."""
    whole = small(tmp_path / "m.onnx", outputs=1).read_bytes()
    random = np.random.default_rng(3)
    path = tmp_path / "damaged.onnx"
    refused = 0
    for trial in range(60):
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[: random.integers(1, len(data))]
        else:
            for position in random.integers(0, len(data), 1 + trial // 6):
                data[position] = random.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            load(path, NHWC)
        except GraphError:
            refused += 1
    assert refused > 30  # some changes only touch a weight
    path.write_bytes(b"")
    with pytest.raises(GraphError):
        load(path, NHWC)
    with pytest.raises(GraphError, match="there is no file"):
        load(tmp_path / "none.onnx", NHWC)
