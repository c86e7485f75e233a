"""Nothing is reported to anybody: not what a model is called, not what its weights hash to, not what machine this is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.readers import tiny

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


def _reports() -> bool:
    import onnxruntime

    return tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 29) and sys.platform == "linux"
