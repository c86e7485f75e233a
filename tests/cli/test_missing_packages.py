"""Where an app's few packages are installed alone, what needs more says which extra brings it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import Engine

ABSENT = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "numba")
PROGRAM = """
import contextlib, io, sys
sys.modules.update(dict.fromkeys({absent}))  # None: importing it raises ModuleNotFoundError
from toolkit.cli.main import main
for line in {lines}:
    sys.argv, said = ["toolkit", *line], io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(said):
        main()
    print(line[0], said.getvalue().strip().splitlines()[-1:])
"""
API = """
import sys
sys.modules.update(dict.fromkeys({absent}))
import toolkit
print(type(toolkit.judge({engine!r})).__name__, len(toolkit.bench([{engine!r}], seconds=0.2).measurements) > 0)
for call in (
    lambda: toolkit.build("recipe.toml"), lambda: toolkit.export("recipe.toml"), lambda: toolkit.tune("recipe.toml"),
    lambda: toolkit.build("model.onnx", precision="int8"), lambda: toolkit.Engine.open({engine!r}).graph,
):
    try:
        call()
    except toolkit.ToolkitError as error:
        print(type(error).__name__, error.extra)
"""


def run(code: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def folder(tmp_path: Path, golden: Engine) -> Path:
    os.symlink(golden.path, tmp_path / "engine")
    (tmp_path / "recipe.toml").write_text((Path(__file__).parents[2] / "engines" / "fashion-resnet18-int8.toml").read_text())
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    (tmp_path / "cache").write_text("TRT-8601-EntropyCalibration2\ninput: 3c010a14\n")
    return tmp_path


def test_each_command_names_the_extra_that_it_needs(folder: Path) -> None:
    lines = [
        ["build", "recipe.toml"], ["build", "model.onnx", "--precision", "fp16"], ["export", "recipe.toml"],
        ["calibrate", "recipe.toml"], ["tune", "recipe.toml"], ["finetune", "recipe.toml", "-o", "tuned"], ["init", "model.onnx"],
        ["diff", "engine", "engine"], ["why", "engine"], ["migrate", "cache", "--onnx", "model.onnx", "-o", "migrated"],
    ]  # fmt: skip
    for said in run(PROGRAM.format(absent=ABSENT, lines=lines), folder):
        assert "is not installed. Run: pip install 'resnet-deploy[export]'" in said, said


def test_so_do_functions(folder: Path) -> None:
    assert run(API.format(absent=ABSENT, engine="engine"), folder) == ["Judgement True", *["MissingExtra export"] * 5]
