"""The same recipe gives the same graph, ranges and answers, bit for bit, in two processes, two folders and two caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPE = (ROOT / "engines" / "fashion-resnet18-int8.toml").read_text()
WORK = """
import json, sys
import numpy as np
from toolkit.disk.files import sha256_bytes
from toolkit.graph.run import graph_runner
from toolkit.onnxfile import serialize
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Recipe
from toolkit.types import Target

trip = prepare(Recipe.load("mine.toml"), proof=False)
graph = typed(trip, Target.parse("cpu"))
batch = np.random.default_rng(0).standard_normal((4, *trip.recipe.preprocess.input_shape), dtype=np.float32)
answers = graph_runner(graph, 1)(batch)
print(json.dumps([sha256_bytes(part) for part in (serialize(graph), trip.ranges.encode(), answers.tobytes())]))
"""


def test_two_processes_two_folders(tmp_path: Path) -> None:
    running = []
    for name, seed in (("one", "1"), ("a longer name", "2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.toml").write_text(RECIPE.replace("images = 512", "images = 16"))
        environment = {**os.environ, "PYTHONHASHSEED": seed, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", WORK]
        running.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True))
    one, other = (json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in running)
    assert one == other
    assert len(set(one)) == 3
