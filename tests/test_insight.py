"""Insight adds what explains the numbers, and changes none of them."""

from __future__ import annotations

import msgspec
import pytest

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.disk.files import sha256
from toolkit.engine.engine import Engine
from toolkit.graph.export import export
from toolkit.graph.work import work
from toolkit.harness.environment import read_environment
from toolkit.harness.results import Results
from toolkit.insight import explain
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Build, Preprocess
from toolkit.reference.resnet import ResNet
from toolkit.types import Target, TensorSpec

HOW = Preprocess(size=(32, 32))


@pytest.fixture(scope="module")
def graph():
    return export(ResNet("resnet18", width=0.25, classes=10), HOW)


@pytest.fixture
def engine(graph, tmp_path):
    compiled = onnxruntime.compile(graph, Build(threads=1), Target("cpu"), tmp_path)
    manifest = Manifest(
        name="thin",
        target="cpu",
        file=compiled.file,
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", *HOW.input_shape)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 10)),),
        profiles=(Profile(min=1, opt=1, max=8),),
        preprocess=HOW,
        hashes={"file": sha256(tmp_path / compiled.file), "weights": "w"},
        settings=compiled.settings,
    )
    manifest.write(tmp_path)
    return tmp_path


def test_work_peaks_and_layers_are_the_engines_own(engine, graph):
    weights = {"mine": "w", "reference": "w", "stranger": "v"}
    cards = {name: {"hashes": {"weights": digest}} for name, digest in weights.items()}
    found = explain(Results(environment=read_environment(), manifests=cards), {"mine": Engine.open(engine)})
    assert found.work["mine"] == work(graph)
    assert found.work["reference"] == found.work["mine"]
    assert "stranger" not in found.work
    assert [one.engine for one in found.layers] == ["mine"]
    assert found.peaks is not None
    assert found.peaks.threads == 1


def test_engines_of_other_targets_leave_the_results_as_they_are(engine):
    card = msgspec.structs.replace(Manifest.read(engine), target="cuda")
    card.write(engine)
    before = Results(environment=read_environment())
    assert explain(before, {"mine": Engine.open(engine)}) == before


def test_work_that_cannot_be_counted_is_a_note_and_no_figure(engine):
    """ONNX Runtime runs its own operators, whose shapes onnx cannot infer."""
    opened = Engine.open(engine)
    node = next(node for node in opened.graph.graph if node.op_type == "Relu")
    node.op_type, node.domain = "QuickGelu", "com.microsoft"
    node.outputs[0].shape = None
    opened.graph.opset_imports["com.microsoft"] = 1
    for other in opened.graph.graph:
        other.outputs[0].shape = None
    cards = {name: {"hashes": {"weights": "w"}} for name in ("mine", "reference")}
    found = explain(Results(environment=read_environment(), manifests=cards), {"mine": opened})
    assert found.work == {}
    assert [one.engine for one in found.layers] == ["mine"]
    assert found.notes[0].startswith("mine is not compared with this machine's peaks: the shapes of ")
