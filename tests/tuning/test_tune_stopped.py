"""A whole `tune` for TensorRT on the played library and GPU, killed halfway: the next run goes on there and comes to the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tuning.small import SMALL

ROOT = Path(__file__).parents[2]
RECIPE = SMALL + """
[precision]
int8 = true
equalize = "none"
weights = "absmax"
rounding = "nearest"
bias_correction = false
[calibration]
data = "packaged:fashion-train"
images = 8
method = "minmax"
[build]
target = "tensorrt"
batch = [1, 1, 1]
[accept]
data = "packaged:fashion-test"
images = 24
max_top1_drop = 100
min_agreement = 0.8
"""
TUNE = """
import json, sys
import pytest
from tests.testing.graphs import install
from toolkit.recipe import Recipe
from toolkit.tuning import tune
with pytest.MonkeyPatch.context() as patch:
    played = install(patch)
    found = tune(Recipe.load(sys.argv[1]), limit=44, seconds=0.02)
    told = {"trials": [(one.name, one.snr, one.searched and one.searched.text) for one in found.trials],
            "reasons": list(found.reasons), "winner": found.winner.name, "timed": played._timed,
            "held": len(played._device.held()), "quantized": found.winner.recipe.precision.quantized,
            "accurate": found.winner.accurate, "times": {one.name: one.p10_ms for one in found.finalists}}
    print(json.dumps(told))
"""


def start(recipe: Path, home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TUNE, str(recipe)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def finish(recipe: Path, home: Path) -> dict[str, Any]:
    with start(recipe, home) as going:
        out, _ = going.communicate(timeout=300)
    assert going.returncode == 0
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_killed_search_goes_on_and_ships_no_loser(tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE)
    trials = tmp_path / "stopped" / "resnet-deploy" / "trials"
    with start(recipe, tmp_path / "stopped") as going:
        while going.poll() is None and (not trials.is_dir() or len(list(trials.iterdir())) < 12):
            time.sleep(0.02)
        going.send_signal(signal.SIGKILL)
    assert going.returncode == -signal.SIGKILL
    again, whole = finish(recipe, tmp_path / "stopped"), finish(recipe, tmp_path / "whole")
    assert again["trials"] == whole["trials"]
    (resumed,) = (reason for reason in again["reasons"] if "earlier search" in reason)
    assert int(resumed.split()[0]) >= 11 and not any("earlier search" in reason for reason in whole["reasons"])
    names = " ".join(name for name, *_ in whole["trials"])
    places = ("sums bare", "first layer bare", "last product bare", "pairs at pools")
    for wanted in ("fp32", "fp16", "int8 in fp16", "int8 but ", "fp8", *places):
        assert wanted in names, wanted
    for found in (again, whole):
        assert found["held"] == 0 and found["accurate"]
        assert found["timed"][0] > found["timed"][-1] == 0  # the winner, built once more for its verdict, is all known
        floating = min(time for name, time in found["times"].items() if name in ("fp32", "fp16"))
        assert not found["quantized"] or found["times"][found["winner"]] <= 0.98 * floating
