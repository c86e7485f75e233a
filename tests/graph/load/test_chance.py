"""A network that draws random numbers, or answers by what else is in a batch, is refused; what only looks like it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.graph.load.files import TensorProto, answers, images, node, opened, scores, tensor, write
from toolkit import pipeline
from toolkit.errors import GraphError
from toolkit.graph.export import export
from toolkit.recipe import Preprocess, Recipe

SMALL = Preprocess(size=(8, 8))
DRAWS = {
    "RandomNormalLike": [node("RandomNormalLike", ["scores"], ["x"], name="noise"), node("Add", ["scores", "x"], ["out"])],
    "RandomUniformLike": [
        node("RandomUniformLike", ["scores"], ["x"], name="noise", seed=1.0),
        node("Add", ["scores", "x"], ["out"]),
    ],
    "RandomNormal": [node("RandomNormal", [], ["x"], name="noise", shape=[4]), node("Add", ["scores", "x"], ["out"])],
    "Bernoulli": [
        node("Sigmoid", ["scores"], ["chance"]),
        node("Bernoulli", ["chance"], ["x"], name="noise"),
        node("Mul", ["scores", "x"], ["out"]),
    ],
}


@pytest.mark.parametrize("kind", DRAWS)
def test_a_file_that_draws_is_refused_by_the_node(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "m.onnx", DRAWS[kind], output="out")
    with pytest.raises(GraphError, match=rf"m.onnx: {kind} 'noise' draws random numbers.*model.eval\(\)"):
        opened(path)


def test_a_draw_that_nothing_needs_and_one_asked_for_its_shape_are_none(tmp_path: Path) -> None:
    end = [
        node("RandomNormal", [], ["x"], shape=[1, 4]),
        node("Shape", ["x"], ["shape"]),
        node("Expand", ["zero", "shape"], ["zeros"]),
        node("Add", ["scores", "zeros"], ["out"]),
        node("RandomUniform", [], ["unused"], shape=[3]),
    ]
    path = write(tmp_path / "m.onnx", end, output="out", more=[tensor("zero", [0.0])])
    np.testing.assert_allclose(answers(opened(path), images()), scores(images()), rtol=1e-5, atol=1e-6)


def test_dropout_in_training_mode_is_taken_out_of_a_file(tmp_path: Path) -> None:
    end = [node("Dropout", ["scores", "half", "yes"], ["out"], name="drop")]
    more = [tensor("half", 0.5), tensor("yes", True, np.bool_)]
    loaded = opened(write(tmp_path / "m.onnx", end, output="out", more=more, kind=TensorProto.FLOAT))
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=1e-5, atol=1e-6)
    assert any("training mode ('drop')" in note for note in loaded.facts.notes)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)


class Noisy(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return self.fc(flat + torch.randn_like(flat))


class Dropping(Head):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.dropout(x.flatten(1), training=True))


class Drifting(Head):
    """No operator draws, but its answers move from call to call: Python's state does not reach the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        calls = getattr(self, "calls", 0)
        if not torch.compiler.is_compiling():
            self.calls = calls + 1
            return self.fc(x.flatten(1)) * (1.0 + self.calls)
        return self.fc(x.flatten(1))


@pytest.mark.parametrize(
    ("kind", "words"), [(Noisy, "RandomNormalLike '.*' draws random"), (Dropping, "Dropout '.*' drops values at random also in")]
)
def test_a_module_that_draws_is_refused_by_the_node(kind: type[nn.Module], words: str) -> None:
    with pytest.raises(GraphError, match=rf"the module {kind.__name__}: {words}"):
        export(kind().eval(), SMALL)


def test_a_reference_that_answers_otherwise_each_time_is_refused() -> None:
    with pytest.raises(GraphError, match="answers one image differently each time"):
        pipeline.prepare(Recipe.of(Drifting().eval(), size=(8, 8)))


class Centered(Head):
    """What stands beside an image in its batch changes its answer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(x.flatten(1))
        return scores - 0.5 * scores.mean(0, keepdim=True)


def test_a_reference_whose_answers_depend_on_the_batch_is_refused(tmp_path: Path) -> None:
    said = r"answers an image otherwise where others are in its batch: off by .*over the first dimension"
    with pytest.raises(GraphError, match=said):
        pipeline.prepare(Recipe.of(Centered().eval(), size=(8, 8)))
    mean = [node("ReduceMean", ["scores", "first"], ["mean"]), node("Add", ["scores", "mean"], ["out"])]
    path = write(tmp_path / "m.onnx", mean, output="out", more=[tensor("first", [0], np.int64)])
    with pytest.raises(GraphError, match=said):
        pipeline.prepare(Recipe.of(str(path), size=(8, 8)))
