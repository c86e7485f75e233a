"""The profile of a real engine names its nodes, and each ran."""

from __future__ import annotations

import msgspec
import pytest

from toolkit.backends.onnxruntime import backend as backend
from toolkit.backends.onnxruntime.profile import profile
from toolkit.disk.files import sha256
from toolkit.errors import EngineError
from toolkit.graph.export import export
from toolkit.manifest import Manifest
from toolkit.recipe import Build, Preprocess
from toolkit.reference.resnet import ResNet
from toolkit.types import Target, TensorSpec


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    how = Preprocess(size=(32, 32))
    compiled = backend.compile(export(ResNet("resnet18", width=0.25, classes=10), how), Build(threads=1), Target("cpu"), folder)
    manifest = Manifest(
        name="thin",
        target="cpu",
        file=compiled.file,
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", *how.input_shape)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 10)),),
        profiles=(),
        preprocess=how,
        hashes={"file": sha256(folder / compiled.file)},
        settings=compiled.settings,
    )
    return folder, manifest


def test_every_convolution_is_there_with_its_time(engine):
    layers = profile(*engine, batch=2, runs=3)
    assert (layers.engine, layers.batch, layers.runs) == ("thin", 2, 3)
    assert sum(layer.kind == "Conv" for layer in layers.layers) == 20
    assert any("layer1.0.conv2" in layer.name for layer in layers.layers)
    assert all(layer.milliseconds >= 0 for layer in layers.layers)
    assert layers.by_kind()[0][0] == "Conv"


def test_a_tampered_engine_is_refused(engine):
    folder, manifest = engine
    with pytest.raises(EngineError, match="not the file"):
        profile(folder, msgspec.structs.replace(manifest, hashes={"file": "0" * 64}))
