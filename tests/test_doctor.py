"""What the doctor says is what the libraries say."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from toolkit import doctor
from toolkit.backends import BACKENDS
from toolkit.backends.tensorrt import library as tensorrt_library
from toolkit.doctor import Capability, Here, examine, libraries, targets
from toolkit.errors import DeviceError, MissingExtra


@pytest.fixture(scope="module")
def rows():
    return examine()


def find(rows, topic, name) -> Capability:
    return next(row for row in rows if row.topic == topic and row.name == name)


def test_versions_are_those_installed(rows):
    assert find(rows, "library", "onnx").found == version("onnx")
    assert find(rows, "library", "onnxruntime").found.startswith(version("onnxruntime"))


def test_the_cpu_can_be_built_and_run(rows):
    row = find(rows, "target", "cpu")
    assert (row.build, row.run, row.next) == (True, True, "")


def test_every_no_has_a_next_step(rows):
    for row in rows:
        if row.build is False or row.run is False or "not installed" in row.found:
            assert row.next, row


def test_each_sm_of_the_library_is_a_target(rows):
    pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
    known = tensorrt_library.load("rtx").architectures
    found = {row.name: row for row in rows if row.topic == "target" and row.name.startswith("rtx")}
    assert set(found) == {"rtx"} | {f"rtx:sm{sm}" for sm in known}
    assert all(row.build for row in found.values())


def here(packages, providers=(), gpu="", sm=None, no_gpu=None) -> Here:
    return Here(dict.fromkeys(packages, "1.0"), providers, gpu, sm, no_gpu)


def test_a_bare_machine_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(tensorrt_library, "MODULES", dict.fromkeys(("tensorrt", "rtx"), ("no_such_library", "nor_this")))
    bare = here([], no_gpu=MissingExtra("cuda-bindings", "gpu"))
    found = {row.name: row for row in targets(bare)}
    assert set(found) == {"cpu", "openvino", "cuda", "tensorrt", "rtx", "ort-rtx"} == set(BACKENDS)
    assert not any(row.build or row.run for row in found.values())
    assert found["rtx"].next == "pip install 'resnet-deploy[rtx]'"
    assert found["cpu"].next == "pip install 'resnet-deploy[export]'"


def test_a_gpu_runs_its_own_sm_only():
    pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
    machine = here(doctor.BUILDERS, ("CPUExecutionProvider", "CUDAExecutionProvider"), "RTX 4090", 89)
    found = {row.name: row for row in targets(machine)}
    assert found["cuda"].run and found["cpu"].build
    assert found["rtx"].run and "sm80, " in found["rtx"].found and "sm75" not in found["rtx"].found
    assert found["ort-rtx"].build and not found["ort-rtx"].run and "[ort-rtx]" in found["ort-rtx"].next
    with_plugin = here((*doctor.BUILDERS, doctor.PLUGIN, "openvino"), ("CPUExecutionProvider",), "RTX 4090", 89)
    hosted = {row.name: row for row in targets(with_plugin)}
    assert hosted["ort-rtx"].run and hosted["openvino"].run and not found["openvino"].run
    old = {row.name: row for row in targets(with_plugin._replace(sm=80))}
    assert old["rtx"].run and not old["ort-rtx"].run and "sm86" in old["ort-rtx"].next
    assert found["rtx:sm89"].run and found["rtx:sm89"].next == ""
    assert not found["rtx:sm86"].run and "sm86" in found["rtx:sm86"].next


def test_the_gpu_build_of_onnxruntime_serves_for_both():
    rows = {row.name: row for row in libraries(here(["onnxruntime-gpu"], ("CUDAExecutionProvider", "CPUExecutionProvider")))}
    assert rows["onnxruntime"].next == "" and "CUDA" in rows["onnxruntime-gpu"].found


def test_no_gpu_is_a_row_with_the_reason():
    rows = doctor.gpus(here([], no_gpu=DeviceError("no driver", remedy="Run: the installer")))
    assert rows[-1].found == "no driver" and rows[-1].next == "the installer"


def test_no_next_step_is_the_doctor_again(rows):
    """What a GPU or a driver fails with elsewhere may send to the doctor, which then has to say what to do."""
    failed = here([], no_gpu=DeviceError("cannot open the GPU", remedy="Run: toolkit doctor"))
    for row in (*rows, *doctor.gpus(failed), *doctor.targets(failed)):
        assert "doctor" not in row.next, row


def test_the_command_prints_the_same_for_machines():
    done = subprocess.run([sys.executable, "-m", "toolkit", "doctor", "--json"], capture_output=True, check=True, timeout=60)
    assert {row["topic"] for row in json.loads(done.stdout)} == {"machine", "library", "gpu", "target"}
