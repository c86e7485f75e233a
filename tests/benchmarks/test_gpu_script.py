"""benchmarks/gpu.py without a GPU, run as a user runs it: it says so and ends well; played engines walk its stages."""

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import DeviceError
from toolkit.harness.results import Results
from toolkit.runtime.device import best

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120)


def test_a_machine_without_a_gpu():
    try:
        best().close()
    except DeviceError:
        done = run()
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("not measured on a GPU: ")
        assert "TensorRT: " in done.stdout
    else:
        pytest.skip("this machine has a GPU")


def test_played_engines_walk_every_stage(tmp_path):
    done = run("--rehearse", "--played-only", "--minutes", "2", "-o", str(tmp_path))
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


def test_stages_that_want_more_time_than_there_is_are_left_out(tmp_path):
    done = run("--rehearse", "--played-only", "--minutes", "0", "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = Results.read(tmp_path / "rehearsal.json")
    assert "throughput of played-rtx at batch 8" in results.failures
