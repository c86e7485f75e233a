"""A model repository for Triton, held against Triton's own schema, against the graph, and against what was measured."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toolkit
from tests.conftest import GOLDEN
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError
from toolkit.handoff import tritoncheck
from toolkit.handoff.pbtxt import entries, to_text
from toolkit.handoff.triton import to_triton
from toolkit.handoff.tritonconfig import engine as engine_config
from toolkit.harness.batching import Batching
from toolkit.images.picture import preprocess
from toolkit.manifest import MANIFEST, Manifest, Profile
from toolkit.types import TensorSpec

pytest.importorskip("tritonclient", reason="the triton extra is not installed")
Make = Callable[..., Engine]
PLAN = {"target": "tensorrt", "settings": {}, "versions": {"tensorrt": "11.1.0.106"}}


def config_of(folder: Path, model: str) -> Any:
    from google.protobuf import text_format

    schema = tritoncheck._schema()
    return text_format.Parse((folder / model / "config.pbtxt").read_text(), schema.ModelConfig())


def test_the_repository_is_whole(golden: Engine, tmp_path: Path) -> None:
    (handed,) = to_triton([golden], tmp_path)
    name = golden.name
    assert handed.models == (name, f"{name}-preprocess", f"{name}-pictures") and handed.version == 1
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        "README.md", "client.py",
        f"{name}/config.pbtxt", f"{name}/labels.txt", f"{name}/1/model.onnx", f"{name}/1/manifest.json",
        f"{name}-preprocess/config.pbtxt", f"{name}-preprocess/warmup/pictures",
        f"{name}-preprocess/1/model.py", f"{name}-preprocess/1/manifest.json",
        f"{name}-pictures/config.pbtxt", f"{name}-pictures/labels.txt", f"{name}-pictures/1/manifest.json",
    }  # fmt: skip
    assert (tmp_path / name / "1" / "model.onnx").read_bytes() == golden.contents["model.onnx"]
    assert tuple((tmp_path / name / "labels.txt").read_text().splitlines()) == golden.manifest.classes


def test_the_configuration_has_the_tensors_of_the_graph(golden: Engine, tmp_path: Path) -> None:
    to_triton([golden], tmp_path)
    config = config_of(tmp_path, golden.name)
    graph = onnx.load(tmp_path / golden.name / "1" / "model.onnx").graph
    for ours, theirs in ((config.input, graph.input), (config.output, graph.output)):
        shapes = [[d.dim_value for d in one.type.tensor_type.shape.dim][1:] for one in theirs]
        assert [(one.name, list(one.dims)) for one in ours] == [(one.name, s) for one, s in zip(theirs, shapes, strict=True)]
    assert (config.backend, config.max_batch_size, config.version_policy.latest.num_versions) == ("onnxruntime", 32, 1)
    assert config.output[0].label_filename == "labels.txt"
    assert config.parameters["intra_op_thread_count"].string_value == str(golden.manifest.settings["threads"])
    assert [group.kind for group in config.instance_group] == [config.instance_group[0].KIND_CPU]
    assert sorted(one.batch_size for one in config.model_warmup) == [1, 8]


def test_what_is_not_measured_is_said(golden: Engine, tmp_path: Path) -> None:
    (handed,) = to_triton([golden], tmp_path)
    said = "not measured: batches of 8 as built for, one call at once, and a wait of 2 ms"
    assert said in handed.remarks
    assert f"# {said}" in (tmp_path / golden.name / "config.pbtxt").read_text()
    assert said in (tmp_path / "README.md").read_text()


def test_the_ensemble_hands_the_preprocessed_picture_on(golden: Engine, tmp_path: Path) -> None:
    to_triton([golden], tmp_path)
    steps = config_of(tmp_path, f"{golden.name}-pictures").ensemble_scheduling.step
    assert [step.model_name for step in steps] == [f"{golden.name}-preprocess", golden.name]
    first, second = steps
    assert dict(first.output_map) == {"input": "input"} == dict(second.input_map)
    assert Manifest.read(tmp_path / f"{golden.name}-preprocess" / "1").preprocess == golden.manifest.preprocess


def test_the_same_engine_keeps_its_version_and_another_is_the_next(golden: Engine, remade: Make, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    later = remade(notes=("built again",))
    assert [to_triton([one], folder)[0].version for one in (golden, golden, later, later, golden)] == [1, 1, 2, 2, 1]
    with pytest.raises(EngineError, match=r"version 1 of .* is another engine.* such as 3"):
        to_triton([later], folder, version=1)
    assert to_triton([later], folder, version=7)[0].version == 7
    with pytest.raises(EngineError, match="from 1 up"):
        to_triton([later], folder, version=0)


def test_two_handoffs_at_once_get_versions_of_their_own(golden: Engine, remade: Make, tmp_path: Path) -> None:
    """Each would find the same next version, and the later one would replace the engine of the earlier without a word."""
    engines = [golden, *(remade(notes=(f"built again, {number}",)) for number in range(3))]
    with ThreadPoolExecutor(4) as pool:
        versions = [one[0].version for one in pool.map(lambda engine: to_triton([engine], tmp_path / "repository"), engines)]
    assert sorted(versions) == [1, 2, 3, 4]
    for engine, version in zip(engines, versions, strict=True):
        for model in (golden.name, f"{golden.name}-preprocess", f"{golden.name}-pictures"):
            assert Manifest.read(tmp_path / "repository" / model / str(version)).seal == engine.manifest.seal


def test_a_model_of_somebody_else_is_not_replaced(golden: Engine, tmp_path: Path) -> None:
    own = tmp_path / f"{golden.name}-pictures" / "config.pbtxt"
    own.parent.mkdir()
    own.write_text('name: "mine"\n')
    with pytest.raises(EngineError, match="the toolkit did not write"):
        to_triton([golden], tmp_path)
    assert own.read_text() == 'name: "mine"\n' and not (tmp_path / golden.name).exists()


def test_two_engines_of_one_name_are_refused(golden: Engine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="2 of the engines are called"):
        to_triton([golden, golden], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plan_is_for_tensorrt(remade: Make, tmp_path: Path) -> None:
    profiles = Profile(min=1, opt=1, max=1), Profile(min=1, opt=16, max=64)
    engine = remade(profiles=profiles, **PLAN)
    (handed,) = to_triton([engine], tmp_path / "repository")
    config = config_of(tmp_path / "repository", engine.name)
    (group,) = config.instance_group
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 64)
    assert group.kind == group.KIND_GPU and list(group.profile) == ["0", "1"]
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert (tmp_path / "repository" / engine.name / "1" / "model.plan").exists()
    assert any("TensorRT is 11.1.0.106" in remark for remark in handed.remarks)
    with pytest.raises(EngineError, match="takes batches from 2 up"):
        to_triton([remade(profiles=(Profile(min=2, opt=4, max=4),), **PLAN)], tmp_path / "other")


def test_an_engine_for_rtx_runs_in_the_toolkits_runner(remade: Make, tmp_path: Path) -> None:
    engine = remade(target="rtx", settings={}, versions={"tensorrt_rtx": "1.7.1.116"})
    (handed,) = to_triton([engine], tmp_path / "repository")
    config = config_of(tmp_path / "repository", engine.name)
    assert config.backend == "python" and config.parameters["engine"].string_value == "model.engine"
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    assert any("resnet-deploy[rtx]" in remark for remark in handed.remarks)
    with pytest.raises(EngineError, match=r"does not run.*--backend python"):
        to_triton([engine], tmp_path / "other", backend="tensorrt")


@pytest.mark.parametrize(("target", "extra"), [("ort-rtx", "ort-rtx"), ("openvino", "openvino"), ("rtx:sm89", "rtx")])
def test_the_extra_that_runs_the_engine_is_named(remade: Make, tmp_path: Path, target: str, extra: str) -> None:
    (handed,) = to_triton([remade(target=target, settings={})], tmp_path / "repository")
    assert any(f"resnet-deploy[{extra}]" in remark for remark in handed.remarks)


def test_pixels_go_in_as_they_are(remade: Make, golden: Engine, tmp_path: Path) -> None:
    """Preprocessing inside the graph: the model before it gives uint8 pixels, and the configurations say so."""
    inside = msgspec.structs.replace(golden.manifest.preprocess, inside=True)
    pixels = (TensorSpec(name="input", dtype="uint8", shape=("N", 28, 28, 1)),)
    engine = remade(preprocess=inside, inputs=pixels)
    to_triton([engine], tmp_path / "repository")
    takes = config_of(tmp_path / "repository", engine.name).input[0]
    gives = config_of(tmp_path / "repository", f"{engine.name}-preprocess").output[0]
    assert (takes.data_type, list(takes.dims)) == (gives.data_type, list(gives.dims)) == (2, [28, 28, 1])  # TYPE_UINT8
    image = preprocess(np.zeros((28, 28), np.uint8), inside)
    assert (image.dtype, list(image.shape)) == (np.uint8, [28, 28, 1])


def test_the_packed_engine_answers_as_before(golden: Engine, tmp_path: Path) -> None:
    to_triton([golden], tmp_path, backend="python")
    with toolkit.load(tmp_path / golden.name / "1" / "model.engine") as runner:
        logits = runner(np.load(GOLDEN / "version-1-batch.npy"))
    with golden.runner() as runner:
        np.testing.assert_array_equal(logits, runner(np.load(GOLDEN / "version-1-batch.npy")))


def test_a_packed_engine_is_handed_off_as_its_folder_is(golden: Engine, tmp_path: Path) -> None:
    packed = Engine.open(golden.pack(tmp_path / "x.engine"))
    for backend in ("auto", "python"):
        to_triton([golden], tmp_path / "a" / backend, backend=backend)
        to_triton([packed], tmp_path / "b" / backend, backend=backend)
    for path in (tmp_path / "a").rglob("*"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert other.is_dir() if path.is_dir() else other.read_bytes() == path.read_bytes()


def test_one_column_for_two_classes_has_no_labels(golden: Engine, remade: Make, tmp_path: Path) -> None:
    outputs = (TensorSpec(name="logits", dtype="float32", shape=("N", 1)),)
    engine = remade(outputs=outputs, outputs_are="binary-logit", classes=("cat", "dog"))
    (handed,) = to_triton([engine], tmp_path / "repository")
    assert not config_of(tmp_path / "repository", engine.name).output[0].label_filename
    assert any("one column tells two classes apart" in remark for remark in handed.remarks)


def test_a_class_is_one_line(remade: Make, golden: Engine, tmp_path: Path) -> None:
    names = ("two\nlines", "tab\there", *(golden.manifest.classes or ())[2:])
    engine = remade(classes=names)
    to_triton([engine], tmp_path / "repository")
    lines = (tmp_path / "repository" / engine.name / "labels.txt").read_text().splitlines()
    assert lines[:2] == ["two lines", "tab here"] and len(lines) == 10


def test_a_configuration_that_does_not_fit_is_found(golden: Engine, tmp_path: Path) -> None:
    to_triton([golden], tmp_path)
    texts = {
        model: (tmp_path / model / "config.pbtxt").read_text() for model in (p.name for p in tmp_path.iterdir() if p.is_dir())
    }
    tritoncheck.check(texts, golden.manifest)
    for old, new in (("TYPE_FP32", "TYPE_FP16"), ("[10]", "[11]"), ("instance_group", "instance_groups"), ('"input"', '"x"')):
        wrong = {**texts, golden.name: texts[golden.name].replace(old, new)}
        with pytest.raises(EngineError):
            tritoncheck.check(wrong, golden.manifest)


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_text_comes_through(values: dict[str, str]) -> None:
    from google.protobuf import text_format

    text = to_text({"name": "m", "parameters": entries({key: {"string_value": value} for key, value in values.items()})})
    found = text_format.Parse(text, tritoncheck._schema().ModelConfig())
    assert {key: one.string_value for key, one in found.parameters.items()} == values


def test_the_command(golden: Engine, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "toolkit", "handoff", "triton", golden.path, "-o", tmp_path / "r", "--backend", "python"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0 and "checked against the protobuf of tritonclient" in done.stdout, done.stderr
    assert (tmp_path / "r" / golden.name / "1" / MANIFEST).exists()
    done = subprocess.run(
        [*map(str, command), "--backend", "onnx"], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 2 and "onnxruntime" in done.stderr


NASTY = '"; import os; os.mkdir("made"); "'


def test_what_a_stranger_named_a_tensor_stays_a_string(remade: Make, tmp_path: Path) -> None:
    """The client is a script that its reader runs: a quote in a name must not end a string of it."""
    engine = remade()
    outputs = (msgspec.structs.replace(engine.manifest.outputs[0], name=NASTY),)
    to_triton([remade(outputs=outputs)], tmp_path / "repository")
    script = (tmp_path / "repository" / "client.py").read_text()
    values = [node.value for node in ast.parse(script).body if isinstance(node, ast.Assign)]
    assert [ast.literal_eval(value) for value in values] == [(f"{engine.name}-pictures", "pictures", NASTY)]
    assert config_of(tmp_path / "repository", engine.name).output[0].name == NASTY


def test_a_remark_of_several_lines_stays_a_comment(golden: Engine) -> None:
    batching = Batching(max_batch=4, how=("measured\nmax_batch_size: 9\r\x85name: 'x'\x1b[2J",))
    text = engine_config(golden.manifest, "onnxruntime", batching, "")
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == [
        "# measured max_batch_size: 9 name: 'x'\N{REPLACEMENT CHARACTER}[2J"
    ]
    assert text.count("max_batch_size") == 2
