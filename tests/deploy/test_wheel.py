"""The wheel in an empty environment with `[cpu]`: it runs an engine of another time, without torch or onnx, and stays small."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "engine" / "golden"
BOUND_MB = 220  # 180 when this was written: docs/how-to/containers.md
SCRIPT = """
import sys, numpy as np, toolkit
with toolkit.load(sys.argv[1]) as runner:
    logits = runner(np.load(sys.argv[2]))
    runner.classify(np.zeros((28, 28), np.uint8))
np.testing.assert_allclose(logits, np.load(sys.argv[3]), rtol=0, atol=1e-4)
loaded = {name.split(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "onnx", "onnx_ir", "onnxscript", "numba", "typer", "rich"}))
"""
pytestmark = pytest.mark.slow


def run(*command: object, **options: object) -> str:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=clean, check=False, cwd=options.get("cwd"))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, `[cpu]`, and nothing else."""
    work = tmp_path_factory.mktemp("wheel")
    names = subprocess.run(
        ["git", "ls-files", "-z", "toolkit", "pyproject.toml", "README.md", "LICENSE"], cwd=ROOT, capture_output=True
    )
    for name in filter(None, names.stdout.decode().split("\0")):  # as it is committed, and without another build's leavings
        (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / "source" / name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", work / "dist", work / "source")
    (wheel,) = (work / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", work / "empty")
    python = work / "empty" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-compile", "-c", ROOT / "constraints.txt", f"{wheel}[cpu]")
    return python


def test_a_committed_engine_runs_without_torch_and_onnx(python: Path, tmp_path: Path) -> None:
    files = GOLDEN / "version-1", GOLDEN / "version-1-batch.npy", GOLDEN / "version-1-logits.npy"
    assert run(python, "-c", SCRIPT, *files, cwd=tmp_path).strip() == "[]"
    installed = run(python, "-m", "pip", "list", "--format=freeze").lower()
    assert "torch" not in installed and not any(line.startswith("onnx==") for line in installed.splitlines())
    assert "fashion-resnet18-int8" in run(python, "-m", "toolkit", "inspect", GOLDEN / "version-1", cwd=tmp_path)


def test_its_installed_size_is_watched(python: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each package with its size is printed, so that a failure says which one grew."""
    site = next((python.parents[1] / "lib").glob("python*")) / "site-packages"
    own = ("pip", "setuptools", "_distutils_hack", "distutils-precedence.pth", "pkg_resources")
    sizes: dict[str, int] = {}
    for path in site.rglob("*"):
        top = path.relative_to(site).parts[0]
        if path.is_file() and not top.startswith(own):
            sizes[top] = sizes.get(top, 0) + path.stat().st_size
    total = sum(sizes.values()) / 1e6
    largest = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sorted(sizes.items(), key=lambda one: -one[1])[:8])
    with capsys.disabled():
        print(f"\n[cpu] installed: {total:.0f} MB ({largest})")
    assert total < BOUND_MB, largest


@pytest.fixture
def serving(python: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(port, process) of what Dockerfile.cpu starts, by hand: its extras, its command, a home that is not there."""
    run(python, "-m", "pip", "install", "-c", ROOT / "constraints.txt", "resnet-deploy[serve]")
    dockerfile = (ROOT / "deploy" / "Dockerfile.cpu").read_text()
    entry, words = (json.loads(re.findall(rf"^{name} (.*)$", dockerfile, re.M)[0]) for name in ("ENTRYPOINT", "CMD"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"/engines/model": str(GOLDEN / "version-1"), "8000": port, "0.0.0.0": "127.0.0.1"}
    own = {"PATH": f"{python.parent}:{os.environ['PATH']}", "HOME": "/nowhere", "TMPDIR": str(tmp_path)}
    with (tmp_path / "log").open("w") as log:
        command = [str(python.parent / entry[0]), *entry[1:], *(places.get(word, word) for word in words)]
        process = subprocess.Popen(command, env=own, cwd=tmp_path, stdout=log, stderr=log)
    try:
        yield port, process
    finally:
        process.kill()
        process.wait()


def test_what_the_image_starts_is_healthy_answers_and_drains(
    serving: tuple[str, subprocess.Popen[bytes]], python: Path, tmp_path: Path
) -> None:
    port, process = serving
    (check,) = re.findall(r"^  CMD (\[.*\])$", (ROOT / "deploy" / "Dockerfile.cpu").read_text(), re.M)
    probe = [str(python), *(word.replace("8000", port) for word in json.loads(check)[1:])]
    end = time.monotonic() + 120
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
    picture = b"P5 28 28 255\n" + bytes(784)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/classify", picture, timeout=60) as reply:
        assert len(json.load(reply)["predictions"]) == 5
    process.terminate()
    assert process.wait(60) == 0, (tmp_path / "log").read_text()
