"""OpenVINO runs the graphs of the `cpu` target and agrees with ONNX Runtime on them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.disk.files import sha256
from toolkit.errors import BackendError, ClosedError, EngineError
from toolkit.graph.export import export
from toolkit.manifest import Manifest
from toolkit.recipe import Build, Preprocess
from toolkit.reference.resnet import ResNet
from toolkit.types import Target, TensorSpec

pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'resnet-deploy[openvino]'")
from toolkit.backends import openvino

HOW = Preprocess(size=(32, 32))


@pytest.fixture(scope="module")
def graph():
    return export(ResNet("resnet18", width=0.25, classes=10), HOW)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((5, *HOW.input_shape)).astype(np.float32)


def built(backend, target, graph, folder):
    compiled = backend.compile(graph, Build(threads=1), Target.parse(target), folder)
    spec = TensorSpec(name="input", dtype="float32", shape=("N", *HOW.input_shape))
    out = TensorSpec(name="logits", dtype="float32", shape=("N", 10))
    return Manifest(
        name="thin",
        target=target,
        file=compiled.file,
        precision="fp32",
        inputs=(spec,),
        outputs=(out,),
        profiles=(),
        preprocess=HOW,
        hashes={"file": sha256(folder / compiled.file)},
        versions=compiled.versions,
        settings=compiled.settings,
    )


@pytest.fixture
def executor(graph, tmp_path):
    live = openvino.open(tmp_path, built(openvino, "openvino", graph, tmp_path))
    yield live
    live.close()


def test_it_answers_as_onnxruntime_does(executor, graph, images, tmp_path):
    (tmp_path / "ort").mkdir()
    other = onnxruntime.open(tmp_path / "ort", built(onnxruntime, "cpu", graph, tmp_path / "ort"))
    for count in (1, 5, 2):
        np.testing.assert_allclose(executor.run(images[:count]), other.run(images[:count]), atol=1e-4)


def test_an_answer_is_not_overwritten_by_the_next(executor, images):
    first = executor.run(images[:1])
    kept = first.copy()
    executor.run(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_threads_may_call_at_once(executor, images):
    alone = [executor.run(images[i : i + 1]) for i in range(5)]
    with ThreadPoolExecutor(4) as pool:
        for i, together in enumerate(pool.map(lambda i: executor.run(images[i % 5 : i % 5 + 1]), range(40))):
            np.testing.assert_allclose(together, alone[i % 5], atol=1e-5)


def test_options_that_it_has_not_are_refused(graph, tmp_path):
    with pytest.raises(BackendError, match="spin"):
        openvino.compile(graph, Build(spin=True), Target("openvino"), tmp_path)
    with pytest.raises(BackendError, match="workspace_mib"):
        openvino.compile(graph, Build(workspace_mib=64), Target("openvino"), tmp_path)


def test_after_close_and_on_a_bad_file_it_says_so(executor, graph, images, tmp_path):
    executor.close()
    with pytest.raises(ClosedError):
        executor.run(images[:1])
    with pytest.raises(EngineError, match="cannot load"):
        openvino._compiled(b"no model", {"threads": 1})
