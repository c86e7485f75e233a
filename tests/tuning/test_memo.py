"""What an earlier search found is taken over only where this one would find the same."""

from __future__ import annotations

import pytest

import toolkit
from toolkit import cpu
from toolkit.tuning.memo import Memo


def asked(target: str, answer: float) -> float:
    return Memo(target).once(float, ("the same question",), lambda: answer)


def test_an_answer_holds_for_one_target_version_and_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked("cpu", 1.0) == 1.0 and asked("cpu", 2.0) == 1.0
    assert asked("rtx:sm89", 2.0) == 2.0
    monkeypatch.setattr(toolkit, "__version__", "of another day")  # it may round predictions otherwise
    assert asked("cpu", 3.0) == 3.0
    monkeypatch.setattr(cpu, "name", lambda: "one without VNNI")  # its INT8 kernels saturate
    assert asked("cpu", 4.0) == 4.0
