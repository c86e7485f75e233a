"""Errors come back from other processes as they were."""

from __future__ import annotations

import pickle

import pytest

from toolkit.errors import BudgetError, MissingExtra, ToolkitError


@pytest.mark.parametrize("error", [BudgetError("x is refused", remedy="Run: toolkit tune"), MissingExtra("onnx", "export")])
def test_an_error_keeps_its_words_across_processes(error: ToolkitError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.remedy) == (type(error), str(error), error.remedy)
