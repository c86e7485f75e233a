"""The examples in the docstrings of the public names run, and print what they show. `reference/python` of the site shows them."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import toolkit

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", toolkit.__all__)
def test_the_example_of_a_public_name_runs(name: str, page_folder: Path) -> None:
    value = getattr(toolkit, name)
    text = inspect.getdoc(value) or ""
    example = doctest.DocTestParser().get_doctest(text, {}, f"toolkit.{name}", inspect.getsourcefile(value), None)
    assert example.examples, f"toolkit.{name} has no example in its docstring"
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert failed == 0, "".join(report)
