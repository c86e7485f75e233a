"""How well the reference itself answers is said, and loudly where it cannot be right."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.outputs import Outputs
from toolkit.reference.standing import standing

CLASSES = 10
LOGITS = Outputs()


def drawn(share: float, n: int = 2000, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right for a share of the images, and their labels."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % classes
    answers = np.where(random.random(n) < share, labels, random.integers(0, classes, n))
    return np.eye(classes, dtype=np.float32)[answers] * 5, labels


def test_a_good_reference_is_stated_and_no_more() -> None:
    found = standing(*drawn(0.9), LOGITS)
    assert found.doubt is None
    assert found.text.startswith("reference top-1 9")
    assert "on 2000 labeled images" in found.text


@pytest.mark.parametrize(("share", "words"), [(0.0, "not clearly better than guessing, 10.00%"), (0.25, "far below")])
def test_chance_and_far_below_are_loud(share: float, words: str) -> None:
    text = standing(*drawn(share), LOGITS).text
    assert text.startswith("WARNING: reference top-1 ")
    assert words in text


def test_a_few_right_answers_of_a_thousand_classes_are_not_chance() -> None:
    logits, labels = drawn(0.7, 2000, 1000)
    assert standing(logits, labels, LOGITS).doubt is None
    assert "its publisher states 76.13%" in standing(logits, labels, LOGITS, usual=76.13).text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: labels - 1, r"are the class after the label's. Set `reference.offset = 1`"),
        (lambda labels: (labels * 7 + 3) % CLASSES, "counts its classes in another order"),
    ],
)
def test_what_went_wrong_with_the_labels_is_told(change: object, words: str) -> None:
    logits, labels = drawn(0.9)
    changed = change(labels)  # type: ignore[operator]
    keep = changed >= 0
    assert words in standing(logits[keep], changed[keep], LOGITS).text


def test_one_answer_for_everything_points_at_the_preprocessing() -> None:
    _, labels = drawn(1.0)
    logits = np.zeros((len(labels), CLASSES), np.float32)
    logits[:, 3] = 1
    text = standing(logits, labels, LOGITS, [f"c{i}" for i in range(CLASSES)]).text
    assert "100.00% of the images are answered 'c3'. Check size, mean, std, scale and color" in text


def test_a_binary_reference_is_judged_by_its_threshold() -> None:
    labels = np.arange(400) % 2
    column = np.where(labels == 1, 0.4, 0.1).astype(np.float32)[:, None]
    assert standing(column, labels, Outputs(are="binary-probability", threshold=0.3)).top1 == 1.0
    assert standing(column, labels, Outputs(are="binary-probability")).top1 == 0.5


@pytest.mark.parametrize(
    ("truth", "labels", "meaning", "words"),
    [
        (None, None, LOGITS, "no images"),
        (np.zeros((3, 4), np.float32), None, LOGITS, "no labels"),
        (np.zeros((3, 4), np.float32), np.zeros(3, np.int64), Outputs(are="multilabel-logits"), "several labels"),
    ],
)
def test_what_cannot_be_known_is_said(truth: object, labels: object, meaning: Outputs, words: str) -> None:
    text = standing(truth, labels, meaning).text  # type: ignore[arg-type]
    assert text.startswith("reference top-1 unknown: ")
    assert words in text
