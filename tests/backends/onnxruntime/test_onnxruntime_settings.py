"""Threads and spinning are chosen by measurement, and the more modest wins unless the other brings something."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from toolkit.backends.onnxruntime import backend as onnxruntime
from toolkit.backends.onnxruntime import settings as onnxruntime_settings
from toolkit.backends.onnxruntime.settings import candidates, choose
from toolkit.graph.export import export
from toolkit.recipe import Build, Preprocess
from toolkit.reference.resnet import ResNet
from toolkit.types import Target

ONE, WAIT, SPIN = {"threads": 1, "spin": False}, {"threads": 4, "spin": False}, {"threads": 4, "spin": True}


class Clock:
    """Seconds that pass only when a session runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def session(self, milliseconds: float, apart: float = 0.0) -> SimpleNamespace:
        """A model of known speed, for 8 images at a time; thrice as slow until the time `apart`."""

        def run(outputs, inputs):
            assert inputs["input"].shape == (8, 1, 2, 2)
            self.now += milliseconds / 1000 * (3 if self.now < apart else 1)

        tensor = SimpleNamespace(name="input", shape=["N", 1, 2, 2], type="tensor(float)")
        return SimpleNamespace(get_inputs=lambda: [tensor], run=run)


@pytest.fixture
def clock(monkeypatch, usual_sittings):
    clock = Clock()
    monkeypatch.setattr(onnxruntime_settings, "time", clock)
    for name, value in usual_sittings.items():
        monkeypatch.setattr(onnxruntime_settings, name, value)
    return clock


def test_what_a_recipe_leaves_open_is_tried():
    assert candidates(Build(), 4) == [ONE, WAIT, SPIN]
    assert candidates(Build(), 1) == [ONE]
    assert candidates(Build(threads=4), 4) == [WAIT, SPIN]
    assert candidates(Build(threads=2, spin=True), 4) == [{"threads": 2, "spin": True}]
    assert candidates(Build(spin=False), 4) == [ONE, WAIT]


@pytest.mark.parametrize(
    ("times", "chosen"),
    [((20, 10, 2), SPIN), ((20, 2, 10), WAIT), ((2, 10, 20), ONE), ((20, 19.9, 19.85), ONE)],
)
def test_the_fastest_is_chosen_and_of_equals_the_more_modest(clock, times, chosen):
    asked = []

    def opened(settings):
        asked.append(str(settings))
        return clock.session(times[[ONE, WAIT, SPIN].index(settings)])

    settings, notes = choose(opened, [ONE, WAIT, SPIN], batch=8)
    assert settings == chosen
    assert len({asked.count(key) for key in asked}) == 1, "each is opened as often as the others"
    assert all(words in notes[0] for words in ("batch 8", "1 thread ", "4 threads ", "4 threads spinning "))


@pytest.mark.parametrize(("apart", "chosen"), [(1.5, SPIN), (60.0, ONE)])
def test_cores_that_lie_apart_for_a_moment_do_not_decide(clock, apart, chosen):
    def opened(settings):
        return clock.session(10) if settings == ONE else clock.session(6 if settings == WAIT else 5, apart)

    assert choose(opened, [ONE, WAIT, SPIN], batch=8)[0] == chosen


def test_a_choice_is_kept_and_a_damaged_one_is_made_again(clock, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = choose(lambda settings: clock.session(2 if settings == WAIT else 10), [ONE, WAIT], 8, "engine")
    assert choose(lambda settings: pytest.fail("opened"), [ONE, WAIT], 8, "engine") == first
    [kept] = (tmp_path / "resnet-deploy" / "threads").iterdir()
    kept.write_text("{")
    assert choose(lambda settings: clock.session(2 if settings == ONE else 10), [ONE, WAIT], 8, "engine")[0] == ONE
    assert choose(lambda settings: clock.session(2 if settings == ONE else 10), [ONE, SPIN], 8, "engine")[0] == ONE


def test_nothing_is_run_where_there_is_nothing_to_choose():
    assert choose(lambda settings: pytest.fail("opened"), [ONE]) == (ONE, ())


def test_a_build_measures_and_notes_the_figures(tmp_path):
    graph = export(ResNet("resnet18", width=0.25, classes=10), Preprocess(size=(32, 32)))
    compiled = onnxruntime.compile(graph, Build(threads=2), Target("cpu"), tmp_path)
    assert compiled.settings["threads"] == 2
    assert "2 threads spinning" in compiled.notes[0]
    assert onnxruntime.compile(graph, Build(threads=1), Target("cpu"), tmp_path).notes == ()
