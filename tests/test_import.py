"""What an app pays for embedding: numpy and one backend, nothing of export, training or reports."""

from __future__ import annotations

import subprocess
import sys

import toolkit

HEAVY = ("torch", "onnx", "onnx_ir", "onnxscript", "rich", "typer", "numba", "safetensors", "scipy")


def loaded(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after `code`."""
    program = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_brings_nothing_heavy() -> None:
    assert not loaded("import toolkit") & {*HEAVY, "onnxruntime", "PIL"}


def test_loading_brings_no_more_than_the_backend() -> None:
    code = """
import toolkit
try:
    toolkit.load("nowhere")
except toolkit.ToolkitError as error:
    assert "not an engine" in str(error)
"""
    assert not loaded(code) & set(HEAVY)
    assert not loaded("import toolkit.backends.onnxruntime.backend, toolkit.runtime") & set(HEAVY)


def test_public_names_are_sorted_and_real() -> None:
    assert toolkit.__all__ == sorted(toolkit.__all__)
    assert all(getattr(toolkit, name) is not None for name in toolkit.__all__)
