"""benchmarks/gpu.py without a GPU, run as a user runs it: it says so and ends well; played engines walk its stages."""

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import DeviceError
from toolkit.harness.results import Results
from toolkit.runtime.device import best

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
PLAYED = ("--rehearse", "--stages", "played-tensorrt,played-rtx")
STAGES = {  # in their order of worth, and what each imports
    "driver": ("cuda.bindings", "pytest"),
    "onnxruntime": ("onnxruntime", "cuda.bindings"),
    "pytorch": ("torch",),
    "rtx": ("tensorrt_rtx", "cuda.bindings"),
    "tensorrt": ("tensorrt", "cuda.bindings"),
    "tests": ("pytest", "cuda.bindings"),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120)


def test_a_machine_without_a_gpu():
    try:
        best().close()
    except DeviceError:
        done = run()
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("not measured on a GPU: ")
        assert "tensorrt: " in done.stdout
    else:
        pytest.skip("this machine has a GPU")


def test_played_engines_walk_every_stage(tmp_path):
    done = run(*PLAYED, "--minutes", "2", "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = Results.read(tmp_path / "rehearsal.json")
    names = ("played-tensorrt", "played-rtx")
    seen = {(m.engine, m.batch, m.clock, m.scenario) for m in results.measurements if len(m.seconds)}
    clocks = ("device", "with-transfers", "end-to-end")
    assert seen == {(n, b, c, "single-stream") for n in names for b in (1, 8) for c in clocks} | {
        (n, 8, "with-transfers", "offline") for n in names
    }
    assert all(m.failure is None for m in results.measurements)
    text = (tmp_path / "rehearsal.md").read_text()
    assert all(text.count(f"| {name} |") == 2 for name in names)


def test_a_run_goes_on_where_it_was_stopped_and_each_stage_leaves_its_results(tmp_path):
    """Stopped after its first stage, as if the machine had been taken away: the joined results are there already."""
    command = [sys.executable, str(SCRIPT), *PLAYED, "-o", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as going:
        first, joined = tmp_path / "rehearsal" / "played-tensorrt.json", tmp_path / "rehearsal.json"
        while not joined.exists() and going.poll() is None:
            time.sleep(0.05)
        going.kill()
    kept = first.read_bytes()
    assert {one.engine for one in Results.read(joined).measurements} == {"played-tensorrt"}
    done = run(*PLAYED, "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "played-tensorrt: done before" in done.stdout and first.read_bytes() == kept
    assert {one.engine for one in Results.read(joined).measurements} == {"played-tensorrt", "played-rtx"}


def test_a_stage_that_lacked_time_is_not_done(tmp_path):
    file = tmp_path / "rehearsal" / "played-tensorrt.json"
    file.parent.mkdir()
    late = run("--rehearse", "--work", "played-tensorrt", "--minutes", "0", "-o", str(file))  # as the walk starts a stage
    assert late.returncode == 0 and "the time was used up" in file.read_text(), late.stderr
    done = run(*PLAYED, "--minutes", "2", "-o", str(tmp_path))
    assert done.returncode == 0 and "done before" not in done.stdout, done.stderr
    assert not Results.read(tmp_path / "rehearsal.json").failures


def test_a_dry_run_proves_each_stages_imports_and_says_what_is_missing():
    done = run("--dry")
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.split(": ", 1)[0] in STAGES)
    assert list(said) == list(STAGES)
    there = {name: all(find_spec(module.partition(".")[0]) for module in modules) for name, modules in STAGES.items()}
    assert {name: text == "its imports work" for name, text in said.items()} == there
    assert all("pip install" in said[name] for name, good in there.items() if not good)
    assert done.returncode == (not all(there.values()))
    assert "no stage is called fast" in run("--stages", "fast").stderr


def test_wheels_travel_in_parts_and_come_together_again(tmp_path):
    wheels, parts = tmp_path / "in", tmp_path / "parts"
    wheels.mkdir()
    parts.mkdir()
    (parts / "part.009").write_bytes(b"of an earlier run")
    data = np.random.default_rng(0).bytes(5 << 19)
    (wheels / "one-1-py3-none-any.whl").write_bytes(data)
    (wheels / "torch-1-py3-none-any.whl").write_bytes(b"is there already")
    script = [sys.executable, str(SCRIPT.with_name("gpu_wheels.py")), str(parts), "--wheels", str(wheels)]
    subprocess.run([*script, "--mib", "1", "--without", "torch,nvidia"], check=True)
    files = sorted(parts.iterdir())
    assert [file.name for file in files] == ["part.000", "part.001", "part.002"]
    assert all(file.stat().st_size <= 1 << 20 for file in files)
    subprocess.run("cat parts/part.* | tar x", shell=True, check=True, cwd=tmp_path)
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "wheels").iterdir()] == [("one-1-py3-none-any.whl", data)]
    refused = subprocess.run([*script, "--mib", "60"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "less than 60" in refused.stderr
