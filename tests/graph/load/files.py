"""Small ONNX classifiers that the tests of loading write: a convolution, a ReLU, a pool, a matrix product, and ends to choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from toolkit.graph.load import LoadedGraph, load
from toolkit.graph.run import graph_runner
from toolkit.recipe import Preprocess, Reference

HOW = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
node = helper.make_node


def tensor(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def trunk(classes: int, dtype: Any = np.float32, seed: int = 0) -> tuple[list[NodeProto], list[TensorProto]]:
    """image [N, 3, 8, 8] -> scores [N, classes]."""
    random = np.random.default_rng(seed)
    nodes = [
        node("Conv", ["image", "w"], ["c"], name="conv", pads=[1] * 4),
        node("Relu", ["c"], ["r"], name="relu"),
        node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        node("Flatten", ["p"], ["features"], name="flatten"),
        node("Gemm", ["features", "m", "b"], ["scores"], name="fc"),
    ]
    shapes = {"w": (6, 3, 3, 3), "m": (6, classes), "b": (classes,)}
    return nodes, [tensor(name, random.normal(size=shape), dtype) for name, shape in shapes.items()]


def write(
    path: Path,
    end: Sequence[NodeProto] = (),
    *,
    classes: int = 4,
    output: str = "scores",
    opset: int = 18,
    shape: Sequence[int | str | None] = ("N", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    dtype: Any = np.float32,
    start: Sequence[NodeProto] = (),
    more: Sequence[TensorProto] = (),
    outputs: Sequence[Any] = (),
    inputs: Sequence[Any] = (),
    domains: Sequence[tuple[str, int]] = (),
    shuffle: bool = False,
) -> Path:
    """A file of `start`, the trunk and `end`. `start` reads 'pixels', where it is given, and makes 'image'."""
    nodes, weights = trunk(classes, dtype)
    nodes = [*start, *nodes, *end]
    nodes = nodes[::-1] if shuffle else nodes
    image = helper.make_tensor_value_info("pixels" if start else "image", kind, list(shape))
    ends = list(outputs) or [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", [image, *inputs], ends, [*weights, *more])
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", opset), *domains)]
    proto = helper.make_model(graph, opset_imports=opsets)
    proto.ir_version = 8 if opset < 22 else 10
    path.write_bytes(proto.SerializeToString())
    return path


def images(count: int = 5, *, whole: bool = False) -> np.ndarray:
    random = np.random.default_rng(1)
    drawn = random.integers(0, 256, (count, 3, 8, 8)) if whole else random.normal(size=(count, 3, 8, 8))
    return drawn.astype(np.float32)


def plain(path: Path, batch: np.ndarray, output: str | None = None, **more: Any) -> np.ndarray:
    """The file as it lies there, on plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run([output] if output else None, {session.get_inputs()[0].name: batch, **more})[0]


def opened(path: Path, how: Preprocess = HOW, **keys: Any) -> LoadedGraph:
    return load(path, how, Reference(onnx=str(path), **keys))


def answers(loaded: LoadedGraph, batch: np.ndarray) -> np.ndarray:
    return graph_runner(loaded.graph, 1)(batch)


def scores(batch: np.ndarray, classes: int = 4) -> np.ndarray:
    """What the trunk gives, on plain ONNX Runtime."""
    nodes, weights = trunk(classes)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])
    graph = helper.make_graph(nodes, "g", [image], [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    proto.ir_version = 8
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": batch})[0]


def quantized(tmp_path: Path, form: str) -> Path:
    """What ONNX Runtime's own quantizer makes of the trunk: `QDQ`, `QOperator` or `dynamic`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    source = write(tmp_path / "float.onnx", opset=17, outputs=[helper.make_tensor_value_info("scores", 1, ["N", 4])])
    if form == "dynamic":
        quantize_dynamic(source, tmp_path / "q.onnx")
        return tmp_path / "q.onnx"

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"image": images()}])

        def get_next(self) -> Any:
            return next(self.left, None)

    quantize_static(source, tmp_path / "q.onnx", Reader(), quant_format=QuantFormat[form], per_channel=True)
    return tmp_path / "q.onnx"
