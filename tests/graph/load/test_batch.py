"""A batch of 1 that an operator inside writes, in a file whose input leaves the batch open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.graph.load.files import HOW, answers, images, node, opened, scores, tensor, write
from toolkit.errors import GraphError
from toolkit.recipe import Recipe
from toolkit.reference.source import open_source

FLAT = [tensor("row", [1, -1], np.int64)]
INSIDE = {
    "view(1, -1) of the scores": ([], [node("Reshape", ["scores", "row"], ["out"])], FLAT),
    "view(1, 3, 8, 8) of the image": (
        [node("Reshape", ["pixels", "picture"], ["image"])],
        [node("Identity", ["scores"], ["out"])],
        [tensor("picture", [1, 3, 8, 8], np.int64)],
    ),
    "view(1, heads, ...) and back": (
        [],
        [
            node("Reshape", ["scores", "heads"], ["apart"]),
            node("Relu", ["apart"], ["kept"]),
            node("Reshape", ["kept", "back"], ["out"]),
        ],
        [tensor("heads", [1, 2, 2], np.int64), tensor("back", [1, 4], np.int64)],
    ),
    "a token of one image": (
        [],
        [
            node("Unsqueeze", ["scores", "one"], ["rows"]),
            node("Concat", ["token", "rows"], ["both"], axis=1),
            node("ReduceMax", ["both", "one"], ["out"], keepdims=0),
        ],
        [tensor("one", [1], np.int64), tensor("token", np.zeros((1, 1, 4)))],
    ),
}


@pytest.mark.parametrize("kind", INSIDE)
def test_a_batch_of_one_that_is_written_inside_is_taken_out(tmp_path: Path, kind: str) -> None:
    start, end, more = INSIDE[kind]
    path = write(tmp_path / "m.onnx", end, start=start, output="out", more=more)
    loaded = opened(path)
    assert loaded.facts.batch == 1
    assert any("a batch of 1 is written into the file" in note for note in loaded.facts.notes)
    want = scores(images())
    want = np.maximum(want, 0) if "back" in kind or "token" in kind else want
    np.testing.assert_allclose(answers(loaded, images()), want, rtol=1e-4, atol=1e-6)
    recipe = Recipe.of(str(path), size=HOW.size, mean=HOW.mean, std=HOW.std, scale=HOW.scale)
    source = open_source(recipe)  # the file itself answers one image at a time
    np.testing.assert_allclose(source.reference(images()), want, rtol=1e-4, atol=1e-6)


def test_one_that_cannot_be_taken_out_is_refused_with_what_to_change(tmp_path: Path) -> None:
    """A mean over the batch behind a view of one image: images in one batch would change each other's answers."""
    end = [node("Reshape", ["scores", "row"], ["flat"]), node("ReduceMean", ["flat", "first"], ["mean"])]
    end += [node("Add", ["flat", "mean"], ["out"])]
    path = write(tmp_path / "m.onnx", end, output="out", more=[*FLAT, tensor("first", [0], np.int64)])
    said = r"a batch of 1 is written into .*do not answer as each does alone.*dynamic_shapes.*flatten"
    with pytest.raises(GraphError, match=said):
        opened(path)
