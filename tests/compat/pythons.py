"""The same recipes on several Pythons: `python -m tests.compat.pythons PYTHON...`. Exit code 1 where what they make differs.

Each PYTHON is an interpreter with the packages of `constraints.txt`; this one is compared as well. The recipe of an ONNX file is
built by all of them, that of a PyTorch network by those that have torch. Each works in a folder and with a cache of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.place import RECIPE as FOREIGN
from tests.faults.place import lay_out
from tests.test_determinism import RECIPE, ROOT, WORK

PARTS = ("graph", "ranges", "answers")
TOLD = "import sys, importlib.util as u; print(sys.version.split()[0], u.find_spec('torch') is not None)"


def main() -> None:
    pythons = [sys.executable, *sys.argv[1:]]
    told = [subprocess.run([python, "-c", TOLD], capture_output=True, text=True, check=True).stdout.split() for python in pythons]
    recipes = {"ONNX file": FOREIGN, "PyTorch network": RECIPE.replace("images = 512", "images = 16")}
    differ = False
    with tempfile.TemporaryDirectory() as place:
        for name, recipe in recipes.items():
            able = [i for i, (_, torch) in enumerate(told) if name == "ONNX file" or torch == "True"]
            found = {told[i][0]: digests(pythons[i], recipe, Path(place, f"{name} {i}")) for i in able}
            first = next(iter(found.values()))
            for version, one in found.items():
                same = [part for part, mine, theirs in zip(PARTS, first, one, strict=True) if mine == theirs]
                differ = differ or len(same) < len(PARTS)
                shown = ", ".join(f"{part} {digest[:12]}" for part, digest in zip(PARTS, one, strict=True))
                print(f"{name}, Python {version}: {shown}")
    print("they differ" if differ else "bit for bit the same")
    sys.exit(1 if differ else 0)


def digests(python: str, recipe: str, folder: Path) -> list[str]:
    """SHA-256 of the graph, the ranges and the answers that this interpreter makes of the recipe."""
    lay_out(folder)
    (folder / "mine.toml").write_text(recipe)
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, "-c", WORK], cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python} failed: {done.stderr[-1500:]}")
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
