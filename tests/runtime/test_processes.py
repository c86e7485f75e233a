"""A live engine and other processes: forks, spawned workers, pickles, and more threads than cores."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import toolkit
from tests.runtime.forking import in_a_fork
from toolkit import cpu
from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.disk.files import sha256
from toolkit.errors import ClosedError, InputError
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Build, Preprocess
from toolkit.runtime import Runner
from toolkit.types import Array, Float, Target, TensorSpec

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
CPU = Target("cpu")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine of one convolution and a global average, on two threads."""
    weights = ir.tensor(np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(np.float32), name="w")
    x = ir.Value(name="x", shape=ir.Shape(["N", 3, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT))
    w = ir.Value(name="w", const_value=weights, shape=ir.Shape([5, 3, 3, 3]), type=ir.TensorType(ir.DataType.FLOAT))
    conv = ir.node("Conv", [x, w], name="conv")
    pool = ir.node("GlobalAveragePool", conv.outputs, name="pool")
    flat = ir.node("Flatten", pool.outputs, name="flat")
    y = flat.outputs[0]
    y.name, y.shape, y.type = "y", ir.Shape(["N", 5]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [y], nodes=[conv, pool, flat], initializers=[w], opset_imports={"": 18}, name="g")
    folder = tmp_path / "engine"
    folder.mkdir()
    compiled = onnxruntime.compile(ir.Model(graph, ir_version=10), Build(threads=2, spin=False), CPU, folder)
    Manifest(
        name="small", target="cpu", file=compiled.file, precision="fp32",
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 3, 8, 8)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 5)),),
        profiles=(Profile(min=1, opt=1, max=4),), preprocess=Preprocess(size=(8, 8)), versions=compiled.versions,
        settings={**compiled.settings, "cpu": "any"},  # as every INT8 engine's manifest has it
        hashes={"file": sha256(folder / compiled.file)},
    ).write(folder)  # fmt: skip
    return folder


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_runner_says_so_closes_and_can_be_loaded_anew(engine: Path) -> None:
    with toolkit.load(engine) as runner:
        right = runner(IMAGES)

        def child() -> None:
            for call in (lambda: runner(IMAGES), runner.reopen):
                with pytest.raises(ClosedError):
                    call()
            with pytest.raises(ClosedError, match=r"opened in the process that this one was forked from\. Load the engine again"):
                runner.classify(np.zeros((8, 8, 3), np.uint8))
            runner.close()
            with toolkit.load(engine) as own:
                np.testing.assert_array_equal(own(IMAGES), right)

        assert in_a_fork(child) == 0
        np.testing.assert_array_equal(runner(IMAGES), right)


def answer(runner: Runner) -> Float:
    return runner(IMAGES)


def test_a_runner_travels_to_a_spawned_worker(engine: Path) -> None:
    with toolkit.load(engine, threads=1) as runner:
        right = runner(IMAGES)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            np.testing.assert_array_equal(pool.apply(answer, (runner,)), right)
        copy = pickle.loads(pickle.dumps(runner))
    with copy:
        assert copy.manifest.settings["threads"] == 1
        np.testing.assert_array_equal(copy(IMAGES), right)


class Zeros:
    max_batch = None

    def run(self, batch: Array) -> Float:
        return np.zeros((len(batch), 5), np.float32)

    def close(self) -> None:
        pass


def test_a_runner_without_a_folder_is_not_pickled(engine: Path) -> None:
    with pytest.raises(InputError, match="not opened from a folder"):
        pickle.dumps(Runner(Manifest.read(engine), Zeros()))


def test_more_threads_than_cores_is_said(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.engine.engine.cores", lambda: 1)
    with pytest.warns(RuntimeWarning, match=r"small runs on 2 threads, this process may use 1 core.*threads=1"):
        toolkit.load(engine).close()


@pytest.mark.parametrize("settings", [{}, {"threads": 0}, {"threads": None}])
def test_no_session_is_left_to_choose_its_threads(engine: Path, settings: dict[str, object]) -> None:
    """ONNX Runtime's own choice for 0 is every core of the host, whatever this process may use."""
    session = onnxruntime.session(str(engine / "model.onnx"), CPU, settings)
    assert session.get_session_options().intra_op_num_threads == cpu.cores()
