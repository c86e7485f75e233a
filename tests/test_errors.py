"""Errors come back from other processes as they were, and a package that is not there is named with the extra that brings it."""

from __future__ import annotations

import pickle
import re
import tomllib
from pathlib import Path

import pytest

from toolkit.errors import _BROUGHT, BudgetError, MissingExtra, ToolkitError, extras


@pytest.mark.parametrize("error", [BudgetError("x is refused", remedy="Run: toolkit tune"), MissingExtra("onnx", "export")])
def test_an_error_keeps_its_words_across_processes(error: ToolkitError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.remedy) == (type(error), str(error), error.remedy)


def test_extras_and_what_they_bring_are_those_of_the_project() -> None:
    """Of each extra that the table names, every package: one that is missing there would end in an internal error."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for _, extra in _BROUGHT.values()}
    declared = {(re.split(r"[\[<>=;]", line)[0], extra) for extra in named for line in project[extra]}
    assert set(_BROUGHT.values()) == declared
    with pytest.raises(MissingExtra, match=r"'threadpoolctl' is not installed.*\[export\]"), extras():
        raise ModuleNotFoundError("No module named 'threadpoolctl'", name="threadpoolctl")
