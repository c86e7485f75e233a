"""examples/ray_folder.py, as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.ray.conftest import Pictures
from toolkit.engine.engine import Engine

pytestmark = pytest.mark.slow


def test_it_runs_and_then_has_nothing_left_to_do(golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("the ray extra is not installed")
    script = Path(__file__).parents[2] / "examples" / "ray_folder.py"
    command = [sys.executable, str(script), str(golden.path), str(pictures.folder), str(tmp_path / "answers")]
    own = {**os.environ, "RAY_ADDRESS": "local"}  # not a cluster that happens to run here
    for answered, before in ((91, 0), (0, 91)):
        done = subprocess.run(command, capture_output=True, text=True, env=own, timeout=300, check=False)
        lines = done.stdout.splitlines()
        assert f"{answered} answered in" in done.stdout and f"{before} had been before" in done.stdout, done.stderr
        with golden.runner() as runner:
            best = runner.classify(pictures.files["a/000.png"])[0][0]
        assert f"a/000.png  {best.label} {best.probability:.1%}" in lines
