"""From files to files, pictures included, on data that is really here."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from toolkit.errors import MeasurementError
from toolkit.harness.accuracy import compare_accuracy
from toolkit.harness.answers import Answers
from toolkit.harness.results import Results
from toolkit.images.dataset import open_data
from toolkit.recipe import Accept, Preprocess, Recipe, Reference
from toolkit.report.write import write_report

HOW = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,), color="L")


@pytest.fixture
def written(results: Results, tmp_path):
    """Results whose answers are about the first 40 packaged test images."""
    images = open_data("packaged:fashion-test", HOW, 40)
    assert images.labels is not None
    right = np.eye(10, dtype=np.float32)[images.labels]
    wrong = right.copy()
    wrong[:3] = np.roll(right[:3], 1, axis=1)
    recipe = Recipe(name="r", reference=Reference(onnx="m.onnx"), preprocess=HOW, accept=Accept(data="packaged:fashion-test"))
    made = msgspec.structs.replace(
        results,
        answers=tuple(Answers.of(n, images.sha256, a, images.labels) for n, a in (("reference", right), ("fp32", wrong))),
        verdicts=(compare_accuracy(right, wrong, images.labels, name="fp32", against="reference"),),
        manifests={"fp32": {"recipe": recipe.to_dict()}},
    )
    made.write(tmp_path / "results.json")
    return tmp_path / "results.json"


def test_it_writes_what_is_asked_for_with_the_pictures_of_the_data_set(written, tmp_path):
    page, text, xml = (tmp_path / name for name in ("r.html", "r.md", "r.xml"))
    write_report([written], page, text, xml)
    assert page.read_text().count("data:image/png;base64,") == 3
    assert text.read_text().startswith("### ")
    assert xml.read_text().startswith("<?xml")


def test_pictures_of_other_data_are_not_shown(written, tmp_path):
    results = Results.read(written)
    foreign = tuple(msgspec.structs.replace(a, data="0" * 64) for a in results.answers)
    msgspec.structs.replace(results, answers=foreign).write(written)
    write_report([written], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "data:image/png" not in page
    assert "The pictures are not on this machine." in page


def test_a_file_cut_short_and_a_folder_that_is_not_there_are_one_line(written, tmp_path):
    with pytest.raises(MeasurementError, match="cannot write"):
        write_report([written], tmp_path / "missing" / "r.html")
    written.write_bytes(written.read_bytes()[:500])
    with pytest.raises(MeasurementError, match="cut short"):
        write_report([written], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
