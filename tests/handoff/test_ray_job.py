"""The job that `toolkit handoff ray` writes, as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toolkit
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError
from toolkit.handoff.ray import to_ray


def test_the_folder_is_a_job(golden: Engine, tmp_path: Path) -> None:
    script = to_ray(golden, tmp_path / "job")
    assert {path.name for path in script.parent.iterdir()} == {"classify.py", "requirements.txt", f"{golden.name}.engine"}
    assert (script.parent / "requirements.txt").read_text().endswith(f"resnet-deploy[cpu,ray]=={toolkit.__version__}\n")
    assert Engine.open(script.parent / f"{golden.name}.engine").manifest == golden.manifest
    compile(script.read_text(), str(script), "exec")
    assert to_ray(golden, tmp_path / "job") == script


def test_a_script_of_somebody_else_is_not_replaced(golden: Engine, tmp_path: Path) -> None:
    (tmp_path / "classify.py").write_text("mine")
    with pytest.raises(EngineError, match="the toolkit did not write it"):
        to_ray(golden, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["classify.py"]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "RAY_ADDRESS": "local"}  # not a cluster that happens to run here
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=own, check=False)


@pytest.mark.slow
def test_the_job_runs_and_does_nothing_twice(golden: Engine, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    from pyarrow import parquet

    done = run("-m", "toolkit", "handoff", "ray", golden.path, "-o", tmp_path / "job")
    assert done.returncode == 0 and "ray job submit" in done.stdout, done.stderr
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (28, 28), np.uint8)).save(pictures / f"{i}.png")
    first = run(tmp_path / "job" / "classify.py", pictures, "-o", tmp_path / "answers", "--actors", "1")
    assert first.stdout.strip().splitlines()[-1].startswith("8 answered in"), first.stderr
    again = run(tmp_path / "job" / "classify.py", pictures, "-o", tmp_path / "answers", "--actors", "1")
    assert again.stdout.strip().splitlines()[-1].startswith("0 answered in"), again.stderr
    (file,) = (tmp_path / "answers").glob("*.parquet")
    labels = {row["key"]: row["label"] for row in parquet.read_table(file).to_pylist()}
    with golden.runner() as runner:
        assert labels == {f"{i}.png": runner.classify(pictures / f"{i}.png")[0][0].label for i in range(8)}
    wrong = run(tmp_path / "job" / "classify.py", tmp_path / "none", "-o", tmp_path / "answers")
    assert wrong.returncode == 1 and wrong.stderr.strip().splitlines()[-1].startswith("error: "), wrong.stderr
