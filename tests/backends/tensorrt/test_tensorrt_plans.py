"""Plans that are kept: found again, bounded, and never trusted when damaged."""

from __future__ import annotations

import os

import pytest

from toolkit.backends.tensorrt import plans as tensorrt_plans


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "resnet-deploy" / "plans"


def test_what_is_kept_is_found(folder):
    assert tensorrt_plans.find("one") is None
    tensorrt_plans.keep("one", b"plan")
    assert tensorrt_plans.find("one") == b"plan" and tensorrt_plans.find("two") is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: b""])
def test_what_is_damaged_is_not_there(folder, damage):
    tensorrt_plans.keep("one", b"plan")
    file = folder / "one.bin"
    file.write_bytes(damage(file.read_bytes()))
    assert tensorrt_plans.find("one") is None


def test_the_oldest_go_first(folder, monkeypatch):
    monkeypatch.setattr(tensorrt_plans, "LIMIT", 3 * 132)
    for age, name in enumerate(("first", "second", "third")):
        tensorrt_plans.keep(name, bytes(100))
        os.utime(folder / f"{name}.bin", (age, age))
    tensorrt_plans.keep("fourth", bytes(100))
    assert sorted(file.stem for file in folder.iterdir()) == ["fourth", "second", "third"]


def test_a_plan_larger_than_the_limit_is_kept_alone(folder, monkeypatch):
    monkeypatch.setattr(tensorrt_plans, "LIMIT", 10)
    tensorrt_plans.keep("small", b"")
    tensorrt_plans.keep("large", bytes(100))
    assert tensorrt_plans.find("large") == bytes(100) and tensorrt_plans.find("small") is None


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tensorrt_plans.keep("one", b"plan")
    assert tensorrt_plans.find("one") is None
