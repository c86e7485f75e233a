"""The lowest versions that `pyproject.toml` declares: `python -m tests.compat.lowest FOLDER` tests the core with them, in a venv.

Only what is declared is lowest (as uv's `lowest-direct`); what those need is whatever pip chooses. torch and torchvision are left
as `constraints.txt` has them, unless `--torch` is given: their lowest wheels on the package index bring gigabytes of CUDA. With
`--beside SITE-PACKAGES` they, and the tests' own tools, are taken from there and nothing of them is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = ("export", "cpu", "sign", "bom")
HEAVY = ("torch", "torchvision")
TOOLS = ("pytest", "hypothesis")
CORE = (
    "tests/recipe", "tests/disk", "tests/images", "tests/calibration", "tests/graph", "tests/engine", "tests/runtime",
    "tests/harness", "tests/backends", "tests/report", "tests/migrate", "tests/fuzz", "tests/test_api.py", "tests/test_import.py",
    "tests/test_floors.py", "tests/test_pipeline.py",
)  # fmt: skip


def floors() -> dict[str, str]:
    """Package -> the lowest version declared, of the core and EXTRAS."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    found = (re.match(r"([\w.-]+)>=([\w.]+)", line) for line in declared)
    return {match[1]: match[2] for match in found if match is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the venv goes, or is")
    parser.add_argument("tests", nargs="*", default=list(CORE), help="absent: the core")
    parser.add_argument("--torch", action="store_true", help="the lowest torch too")
    parser.add_argument("--beside", type=Path, help="site-packages with torch and the tests' tools")
    given = parser.parse_intermixed_args()  # tests may stand behind the options
    lowest = {name: version for name, version in floors().items() if given.torch or name not in HEAVY}
    python = given.folder.resolve() / "bin/python"
    ready = given.folder / "ready"
    if not ready.exists():  # else an installation that was cut short would be taken for one
        venv.create(given.folder, with_pip=True, clear=True)
        wanted = [f"{name}=={version}" for name, version in lowest.items()]
        if not given.beside:
            wanted += [*TOOLS, *(() if given.torch else HEAVY)]
        pins = given.folder / "pins.txt"
        tested = (ROOT / "constraints.txt").read_text().splitlines()
        pins.write_text("\n".join(line for line in tested if line.partition("==")[0] in (*HEAVY, *TOOLS)) + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", pins, *wanted], check=True)
        if given.beside:
            place = next((given.folder / "lib").glob("python*/site-packages"))
            (place / "beside.pth").write_text(f"{given.beside.resolve()}\n")
        ready.touch()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *given.tests]
    if given.beside:  # a SciPy that lies there is of no lowest version, and says so
        words += ["-W", "ignore:A NumPy version:UserWarning"]
    sys.exit(subprocess.run(words, cwd=ROOT, env=env, check=False).returncode)


if __name__ == "__main__":
    main()
