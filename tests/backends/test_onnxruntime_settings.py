"""Spinning is chosen where it is faster, and only there."""

from __future__ import annotations

import time
from types import SimpleNamespace

import msgspec
import pytest

from toolkit.backends import onnxruntime
from toolkit.backends.onnxruntime_settings import choose_spin
from toolkit.errors import BackendError
from toolkit.graph.export import export
from toolkit.recipe import Build, Preprocess, Recipe
from toolkit.reference.resnet import ResNet
from toolkit.types import Target


class Session:
    """A model of known speed."""

    def __init__(self, milliseconds: float) -> None:
        self.seconds = milliseconds / 1000

    def get_inputs(self):
        return [SimpleNamespace(name="input", shape=["N", 1, 2, 2])]

    def run(self, outputs, inputs):
        assert inputs["input"].shape == (1, 1, 2, 2)
        time.sleep(self.seconds)


@pytest.mark.parametrize(("spun", "wait", "chosen"), [(2, 20, True), (20, 2, False)])
def test_the_faster_is_chosen(spun, wait, chosen):
    asked = []

    def opened(settings):
        asked.append(settings["spin"])
        return Session(spun if settings["spin"] else wait)

    settings, note = choose_spin(opened, {"threads": 2, "spin": False})
    assert settings == {"threads": 2, "spin": chosen}
    assert ("threads spin" if settings["spin"] else "threads wait") in note
    assert asked.count(True) == asked.count(False)


def test_a_build_measures_when_asked_and_notes_the_figures(tmp_path):
    how = Preprocess(size=(32, 32))
    graph = export(ResNet("resnet18", width=0.25, classes=10), how)
    compiled = onnxruntime.compile(graph, Build(threads=1, spin="measure"), Target("cpu"), tmp_path)
    assert isinstance(compiled.settings["spin"], bool)
    assert "ms a call with spinning threads" in compiled.notes[0]
    assert onnxruntime.compile(graph, Build(threads=1), Target("cpu"), tmp_path).notes == ()
    with pytest.raises(BackendError, match="measure"):
        onnxruntime.compile(graph, Build(spin="measure"), Target("cuda"), tmp_path)


def test_the_recipe_takes_the_word_and_no_other():
    text = 'name = "a"\n[reference]\nonnx = "m.onnx"\n[build]\nspin = {}\n'
    assert Recipe.parse(text.format('"measure"')).build.spin == "measure"
    assert Recipe.parse(text.format("true")).build.spin is True
    with pytest.raises(ValueError, match="spin"):
        Recipe.parse(text.format('"maybe"'))
    assert msgspec.to_builtins(Build(spin="measure"))["spin"] == "measure"
