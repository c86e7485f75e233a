"""Mutation testing of the pure modules: `pip install mutmut==3.8.1`, then `python -m tests.mutation.run [GROUP...]`.

mutmut changes one thing at a time in a copy of the tree, and runs the tests that reach it; a change that no test notices
survives. `survivors.md` says what was killed and why the rest may live. A group is some modules and the tests about them.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "statistics": (
        ("harness/statistics.py", "harness/paired.py", "harness/verdict.py", "harness/stability.py"),
        ("harness/test_statistics_bench.py", "harness/test_paired.py", "harness/test_stability.py", "harness/test_accuracy.py"),
    ),
    "intervals": (("harness/intervals.py",), ("harness/test_intervals.py",)),
    "ranges": (("calibration/ranges.py",), ("calibration/test_ranges.py", "calibration/test_ranges_told.py")),
    "calibration": (
        ("calibration/methods.py", "calibration/histogram.py"),
        ("calibration/test_methods.py", "calibration/test_histogram.py"),
    ),
    "graph": (
        ("graph/select.py", "graph/bias.py", "graph/offsets.py", "graph/work.py", "graph/magnitude.py", "graph/overflow.py"),
        ("graph/test_select_values.py", "graph/test_passes_values.py"),
    ),
    "weights": (("graph/weights.py",), ("graph/test_qdq_values.py", "graph/test_weights_int8.py")),
    "qdq": (("graph/qdq.py",), ("graph/test_qdq_values.py",)),  # its other tests export networks: a minute for each mutant
    "schemes": (
        ("graph/scheme_cpu.py", "graph/scheme_tensorrt.py"),
        ("graph/test_scheme_values.py",),
    ),
    "equalize": (("graph/equalize.py",), ("graph/test_equalize_values.py",)),
    "small": (
        ("graph/variance.py", "graph/softmax.py", "graph/product.py", "graph/gain.py", "graph/edges.py", "graph/outline.py"),
        (
            "graph/test_small_values.py",
            "graph/test_select_values.py::test_gains_at_the_ends",
            "graph/test_select_values.py::test_a_gain_and_its_error_are_those_of_the_jackknife",
        ),
    ),
    "activations": (("graph/activations.py",), ("graph/test_activations_values.py",)),
    "compensate": (("graph/compensate.py",), ("graph/test_compensate_values.py",)),
    "prescale": (("graph/prescale.py",), ("graph/test_prescale_values.py",)),
    "envelope": (("graph/envelope.py",), ("graph/test_envelope.py", "graph/test_envelope_values.py")),
    "fold": (("graph/fold.py",), ("graph/test_fold.py",)),
    "collect": (
        ("calibration/collect.py", "calibration/observer.py", "calibration/pieces.py"),
        ("calibration/test_collect.py", "calibration/test_observer.py"),
    ),
    "fingerprint": (("calibration/fingerprint.py",), ("calibration/test_fingerprint.py",)),
}  # fmt: skip
CONFIG = """
[mutmut]
source_paths=toolkit
only_mutate=
{modules}
pytest_add_cli_args_test_selection=
{tests}
pytest_add_cli_args=
    -p
    no:cacheprovider
also_copy=
    tests
    engines
    examples
    docs
    research
    pyproject.toml
    README.md
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", help=f"absent: all of {', '.join(GROUPS)}")
    parser.add_argument("--keep", type=Path, help="a folder for the copies; a run that was cut short goes on there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for name in given.groups or GROUPS:
            folder = (given.keep or Path(place)) / name
            _lay_out(folder, *GROUPS[name])
            env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
            command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1"]
            log = folder / "mutmut.log"
            with log.open("wb") as file:
                done = subprocess.run(command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                sys.exit(f"mutmut ended with {done.returncode}: {log.read_bytes()[-2000:].decode(errors='replace')}")
            report(name, folder)


def _lay_out(folder: Path, modules: tuple[str, ...], tests: tuple[str, ...]) -> None:
    for name in ("toolkit", "tests", "engines", "examples", "docs", "research"):
        skipped = shutil.ignore_patterns("__pycache__", "built", "corpus")
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=skipped)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, folder / name)
    listed = ["\n".join(f"    {room}/{path}" for path in paths) for room, paths in (("toolkit", modules), ("tests", tests))]
    (folder / "setup.cfg").write_text(CONFIG.format(modules=listed[0], tests=listed[1]))


def report(name: str, folder: Path) -> None:
    """Counts by module, and the names of the survivors; `mutmut show NAME` in the folder prints the change.

    A change in a sentence for people (a text with a blank in it) is counted apart: no test compares those word by word.
    """
    for path in sorted((folder / "mutants").rglob("*.meta")):
        codes: dict[str, int | None] = json.loads(path.read_text())["exit_code_by_key"]
        codes = {key: code for key, code in codes.items() if code is not None}  # of a run that was cut short
        if not codes:
            continue
        sentences = _sentences(path.with_suffix(""))
        lived = {key: "survived" if code == 0 else "untested" for key, code in codes.items() if code in (0, 5, 33)}
        count, words = len(codes), [key for key in codes if key.rpartition(".")[2] in sentences]
        matter = [key for key in lived if key not in words]
        rest = count - len(words)
        module = path.relative_to(folder / "mutants").with_suffix("")
        told = f"{count - len(lived)} of {count} killed ({1 - len(lived) / count:.0%})"
        told += f"; without sentences {rest - len(matter)} of {rest} ({1 - len(matter) / max(rest, 1):.0%})"
        print(f"{name}: {module}: {told}", flush=True)
        for key in matter:
            print(f"  {lived[key]} {key}", flush=True)


def _sentences(path: Path) -> set[str]:
    """The names of the mutants in `path` that differ from the original in sentences alone."""
    functions = {node.name: node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    found = set()
    for name, node in functions.items():
        stem, _, number = name.rpartition("__mutmut_")
        if number.isdigit() and _wordless(node) == _wordless(functions[f"{stem}__mutmut_orig"]):
            found.add(name)
    return found


def _wordless(function: ast.FunctionDef) -> list[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip("X"):
            node.value = ""
    return [ast.dump(statement) for statement in function.body]


if __name__ == "__main__":
    main()
