"""benchmarks/gpu.py without a GPU: it says so and ends well; its stages walk on played engines."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from toolkit.harness.results import Results

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
gpu = pytest.importorskip("gpu", reason="the export extra is not installed")
from gpu_report import trtexec_median  # noqa: E402
from gpu_subjects import played  # noqa: E402


def test_a_machine_without_a_gpu():
    if gpu.find_device()[0] is not None:
        pytest.skip("this machine has a GPU")
    done = subprocess.run([sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("not measured on a GPU: ")
    assert "TensorRT: " in done.stdout


def test_played_engines_walk_every_stage(tmp_path):
    run = gpu.Run(minutes=5, console=Console(quiet=True))
    run.subjects += [played("a", "tensorrt-11.4.json", "tensorrt"), played("b", "tensorrt-rtx-1.7.json", "tensorrt_rtx")]
    gpu.latency(run, (1, 2), seconds=0.5)
    gpu.throughput(run, (2,), 0.05)
    gpu.check_trtexec(run, (1,))
    with run.stage("a stage that wants more time than there is", wants=1e9) as go:
        assert not go
    gpu.finish(run, "title", (1, 2), tmp_path, "played")
    results = Results.read(tmp_path / "played.json")
    seen = {(m.engine, m.batch, m.clock, m.scenario) for m in results.measurements if len(m.seconds)}
    clocks = ("device", "with-transfers", "end-to-end")
    assert seen == {(n, b, c, "single-stream") for n in "ab" for b in (1, 2) for c in clocks} | {
        (n, 2, "with-transfers", "offline") for n in "ab"
    }
    assert all(m.failure is None for m in results.measurements)
    assert set(results.failures) >= {"a stage that wants more time than there is"}
    text = (tmp_path / "played.md").read_text()
    assert text.count("| a |") == 2
    for subject in run.subjects:
        subject.close()


def test_played_engines_answer():
    subject = played("a", "tensorrt-11.4.json", "tensorrt", (3, 8, 8))
    batch = np.random.default_rng(0).normal(size=(300, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(subject.run(batch), batch.mean(axis=(2, 3)), atol=1e-6)
    subject.close()


def test_the_figure_of_trtexec():
    line = "[I] GPU Compute Time: min = 0.34 ms, max = 0.4 ms, mean = 0.36 ms, median = 0.351 ms, percentile(90%) = 0.37 ms"
    assert trtexec_median(f"[I] Latency: min = 1 ms, median = 2 ms\n{line}\n") == 0.351
    assert trtexec_median("&&&& FAILED") is None
