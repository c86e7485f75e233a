"""A stranger's manifest may tell a backend only what is known, in known ranges; so may an app that loads an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import toolkit
from toolkit.backends.openvino import SETTINGS as OPENVINO
from toolkit.backends.settings import PlanOptions, PlanSettings, checked
from toolkit.disk.files import sha256
from toolkit.errors import EngineError
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.types import TensorSpec

THREADS = ["x", None, 100_000, 0, -1, 1.5, True, [1], 2**70]
PATHS = ["optimized", "optimized", "profile", "as_is", "without", "jit_cache", "lean", "session.x"]


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """[N, 3, 2, 2] -> the mean of each channel."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in (("input", [3, 2, 2]), ("logits", [3]))]
    node = helper.make_node("ReduceMean", ["input"], ["logits"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    folder = tmp_path / "engine"
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    Manifest(
        name="x",
        target="cpu",
        file="model.onnx",
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, 2, 2)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 3)),),
        profiles=(Profile(min=1, opt=1, max=4),),
        preprocess=Preprocess(size=(2, 2)),
        settings={"threads": 1, "spin": False},
        hashes={"file": sha256(folder / "model.onnx")},
    ).write(folder)
    return folder


def with_settings(engine: Path, **settings: Any) -> Path:
    card = Manifest.read(engine)
    msgspec.structs.replace(card, settings={**card.settings, **settings}).write(engine)
    return engine


def test_an_engine_with_its_own_settings_runs(engine: Path) -> None:
    with toolkit.load(engine, threads=1) as runner:
        np.testing.assert_allclose(runner(np.ones((2, 3, 2, 2), np.float32)), np.ones((2, 3)))


@pytest.mark.parametrize("key", PATHS)
def test_a_setting_that_names_a_file_writes_none(engine: Path, tmp_path: Path, key: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("thesis")
    with pytest.raises(EngineError, match=rf"`{key}`.*Allowed are threads, spin"):
        toolkit.load(with_settings(engine, **{key: str(victim)}))
    with pytest.raises(EngineError, match=f"`{key}`"):
        toolkit.load(with_settings(engine), **{key: str(victim)})
    assert victim.read_text() == "thesis"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine", "victim"]


@pytest.mark.parametrize("threads", THREADS)
def test_threads_are_a_number_of_threads(engine: Path, threads: Any) -> None:
    if threads is not None:  # for `load`, None is what the manifest says
        with pytest.raises(EngineError, match=r"options to load x with: `threads`"):
            toolkit.load(engine, threads=threads)
    with pytest.raises(EngineError, match=r"settings of x: `threads`|a whole number of 71 bits"):
        toolkit.load(with_settings(engine, threads=threads))


@pytest.mark.parametrize(("key", "value"), [("spin", "yes"), ("spin", 1), ("spin", None), ("Threads", 1), ("", 1), ("[/x]", 1)])
def test_other_settings_too(engine: Path, key: str, value: Any) -> None:
    with pytest.raises(EngineError, match="the settings of x"):
        toolkit.load(with_settings(engine, **{key: value}))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (OPENVINO, {"threads": 2, "precision_hint": "f32", "streams": 1}, [{"precision_hint": "bf16"}, {"streams": -1}]),
        (
            PlanSettings,
            {"sm": 89, "workspace_mib": 64, "optimization_level": 5, "refit": True, "hardware_compatibility": "ampere_plus"},
            [{"sm": "89"}, {"sm": 0}, {"sms": []}, {"optimization_level": 6}, {"hardware_compatibility": "all"}, {"refit": 1}],
        ),
        (
            PlanOptions,
            {"contexts": 3, "graphs": False, "jit_cache": Path("x")},
            [{"contexts": 0}, {"graphs": "no"}, {"jit_cache": 5}],
        ),
    ],
)
def test_each_backend_has_its_own(kind: Any, good: dict[str, Any], bad: list[dict[str, Any]]) -> None:
    checked(good, kind, "these")
    for values in bad:
        with pytest.raises(EngineError, match=f"these: .*{next(iter(values))}"):
            checked({**good, **values}, kind, "these")
