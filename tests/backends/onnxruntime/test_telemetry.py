"""Nothing is reported to anybody: not what a model is called, not what its weights hash to, not what machine this is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.engines import tiny

ROOT = Path(__file__).parents[3]
LOAD = """
import sys
from toolkit.engine.engine import load
with load(sys.argv[1]) as runner:
    pass
"""
DOCTOR = """
from toolkit.doctor import look
look()
"""


@pytest.mark.parametrize("program", [LOAD, DOCTOR], ids=["load", "doctor"])
@pytest.mark.parametrize("wish", [None, "0"])
def test_onnxruntime_keeps_no_identity_and_queues_no_event(tmp_path: Path, program: str, wish: str | None) -> None:
    """What it would send it first lays into these folders. An app that wants it, and says so, is left alone."""
    engine = tiny(tmp_path / "engine")
    places = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for place in places.values():
        Path(place).mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")}
    env = {**kept, **places, **({} if wish is None else {"ORT_DISABLE_TELEMETRY": wish})}  # a CI's variables turn it off as well
    subprocess.run([sys.executable, "-c", program, engine], env=env, cwd=ROOT, check=True, capture_output=True)
    found = {path.name for place in places.values() for path in Path(place).rglob("*") if path.is_file()}
    assert ("deviceid" in found) == (wish == "0" and _reports())


def test_the_plugin_is_not_loaded_without_the_switch(tmp_path: Path) -> None:
    """`ort-rtx` asks for ONNX Runtime by a way of its own: the first engine of a process may be such a one."""
    script = """
import os
from toolkit.backends.onnxruntime import plugin
from toolkit.errors import ToolkitError
try:
    plugin._plugin()
except ToolkitError:
    pass
print(os.environ.get("ORT_DISABLE_TELEMETRY"))
"""
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", script], env=kept, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"


def _first(text: str) -> int:
    """Where ONNX Runtime is first imported; at the end where it is not."""
    return min(text.find(words) % (len(text) + 1) for words in ("import onnxruntime", "from onnxruntime"))


SCRIPTS = sorted(path for room in ("benchmarks", "examples") for path in (ROOT / room).glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_benchmarks_and_examples_report_nothing_either(path: Path) -> None:
    text = path.read_text()
    if _first(text) < len(text):
        assert 0 <= text.find("ORT_DISABLE_TELEMETRY") < _first(text)


def test_the_lines_that_a_handoff_shows_have_the_switch_before_the_import() -> None:
    from toolkit.handoff.ort import LOADING

    assert 0 <= LOADING.find("ORT_DISABLE_TELEMETRY") < _first(LOADING)
    compile(LOADING, "shown", "exec")


def _reports() -> bool:
    import onnxruntime

    return tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 29) and sys.platform == "linux"
