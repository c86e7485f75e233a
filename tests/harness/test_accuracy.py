"""Verdicts in the words that people read, and labels and logits that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from toolkit.errors import DataError, MeasurementError
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.answers import Answers, rank_of, snr
from toolkit.images.dataset import open_data
from toolkit.recipe import Accept, Preprocess
from toolkit.types import Array, Float

CLASSES = 10


def answers(count: int, wrong: float, seed: int = 0) -> tuple[Float, Array]:
    """Logits that are right but for a share, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    logits = rng.normal(size=(count, CLASSES)).astype(np.float32)
    logits[np.arange(count), np.where(rng.random(count) < wrong, (labels + 1) % CLASSES, labels)] += 9
    return logits, labels


def broken(logits: Float, labels: Array, share: float, seed: int = 1) -> Float:
    """The same logits, with a share of the images answered by the next class."""
    changed = logits.copy()
    rows = np.random.default_rng(seed).choice(len(logits), round(share * len(logits)), replace=False)
    changed[rows, (labels[rows] + 2) % CLASSES] += 30
    return changed


@pytest.mark.parametrize(("share", "word"), [(0.0, "same"), (0.001, "same"), (0.03, "worse")])
def test_the_word_for_a_loss(share: float, word: str) -> None:
    logits, labels = answers(5000, 0.1)
    verdict = compare_accuracy(logits, broken(logits, labels, share), labels)
    assert verdict.word == word
    assert verdict.accepted == (word == "same")
    assert verdict.text.startswith(word)
    assert verdict.disagreements == tuple(np.flatnonzero(logits.argmax(1) != broken(logits, labels, share).argmax(1)))


def test_better_is_said_too() -> None:
    logits, labels = answers(5000, 0.1)
    verdict = compare_accuracy(broken(logits, labels, 0.02), logits, labels, Accept(min_agreement=0.9))
    assert verdict.word == "better"
    assert verdict.text.startswith("better by")


@pytest.mark.parametrize(("count", "said"), [(6, True), (538, True), (539, False)])
def test_equal_answers_on_few_images_do_not_claim_what_they_cannot_show(count: int, said: bool) -> None:
    logits, labels = answers(count, 0.1)
    verdict = compare_accuracy(logits, logits * 1.01, labels)
    assert verdict.text.startswith("same within 0.5 points")
    assert (f"{count} images are too few to show such a margin; 539 show it with 95 % confidence" in verdict.text) == said
    assert verdict.test is not None and (verdict.test.lower > -0.005) != said


def test_few_images_cannot_tell_and_say_how_many_would() -> None:
    logits, labels = answers(60, 0.1)
    verdict = compare_accuracy(logits, broken(logits, labels, 1 / 60), labels)
    assert verdict.word == "cannot tell"
    assert not verdict.accepted
    assert verdict.undecided
    assert "more images" in verdict.remedy
    assert "wider" in verdict.remedy
    assert verdict.test is not None
    assert f"cannot tell with 60 images: {verdict.test.needed} would do" in verdict.text


@pytest.mark.parametrize("count", [8, 60])
def test_equal_answers_are_accepted_on_any_number_of_images(count: int) -> None:
    logits, labels = answers(count, 0.1)
    verdict = compare_accuracy(logits, logits * 1.01, labels)
    assert verdict.accepted
    assert verdict.word == "same"
    assert verdict.snr == pytest.approx(40, abs=0.01)


def test_noise_about_a_silent_reference_is_no_agreement() -> None:
    silent = np.zeros((4, 3), np.float32)
    assert snr(silent, silent) == 120
    assert snr(silent, silent + 1) == -120
    assert snr(silent, silent * np.nan) == -120


@pytest.mark.parametrize(("changed", "accepted", "undecided"), [(0, True, False), (1, False, True), (12, False, False)])
@pytest.mark.parametrize(("held_back", "labeled"), [(True, False), (False, False), (False, True)])
def test_agreement_below_the_budget_decides_where_the_images_are_enough(
    changed: int, accepted: bool, undecided: bool, held_back: bool, labeled: bool
) -> None:
    logits, labels = answers(40, 0.1)
    broad = Accept(max_top1_drop=100)
    verdict = compare_accuracy(logits, broken(logits, labels, changed / 40), labels if labeled else None, broad)
    verdict = msgspec.structs.replace(verdict, held_back=held_back)
    assert (verdict.accepted, verdict.undecided) == (accepted, undecided)
    assert f"agreement {1 - changed / 40:.2%}" in verdict.text
    assert not undecided or "accept.min_agreement" in verdict.remedy
    assert ("cannot tell: it may be as high as 99.87%" in verdict.text) == undecided


def test_no_answers_at_all_are_refused() -> None:
    logits, labels = answers(20, 0.1)
    with pytest.raises(MeasurementError, match="no answers to compare"):
        compare_accuracy(logits[:0], logits[:0], labels[:0])


def test_a_margin_that_no_set_can_show_is_said_so() -> None:
    logits, labels = answers(2000, 0.1)
    right = logits.argmax(1) == labels
    swapped = logits.copy()
    for row, answer in ((right.argmax(), labels + 1), (right.argmin(), labels)):  # one broken, one mended
        swapped[row, answer[row] % CLASSES] += 30
    verdict = compare_accuracy(logits, swapped, labels, Accept(max_top1_drop=1e-6))
    assert "more than 10000000 would do" in verdict.text


def test_a_real_loss_within_the_margin_is_the_same_and_agreement_can_still_refuse() -> None:
    logits, labels = answers(5000, 0.1)
    verdict = compare_accuracy(logits, broken(logits, labels, 0.03), labels, Accept(max_top1_drop=10))
    assert verdict.word == "same"
    assert verdict.agreement < 0.98
    assert not verdict.accepted


def test_figures_are_those_of_scikit_learn() -> None:
    logits, labels = answers(2000, 0.3)
    other = logits + np.random.default_rng(5).normal(0, 3, logits.shape).astype(np.float32)
    verdict = compare_accuracy(logits, other, labels)
    for side, array in ((0, logits), (1, other)):
        assert verdict.top1 is not None
        assert verdict.top5 is not None
        assert verdict.top1[side] == pytest.approx(metrics.accuracy_score(labels, array.argmax(1)))
        assert verdict.top5[side] == pytest.approx(metrics.top_k_accuracy_score(labels, array, k=5, labels=range(CLASSES)))
    recall = metrics.recall_score(labels, other.argmax(1), average=None)
    assert [c.engine for c in verdict.changes] == pytest.approx(list(recall))
    assert verdict.worst_logit_error == pytest.approx(np.abs(logits - other).max(), rel=1e-6)
    assert verdict.mean_logit_error == pytest.approx(metrics.mean_absolute_error(logits, other), rel=1e-5)


def test_without_labels_agreement_decides() -> None:
    logits, labels = answers(500, 0.1)
    assert compare_accuracy(logits, logits, None).accepted
    verdict = compare_accuracy(logits, broken(logits, labels, 0.1), None)
    assert (verdict.word, verdict.accepted) == ("agreement only", False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda labels: np.where(np.arange(len(labels)) == 7, 10, labels), "image 7 is labeled 10, .* classes 0 to 9"),
        (lambda labels: np.where(np.arange(len(labels)) == 3, -1, labels), "image 3 is labeled -1"),
        (lambda labels: np.full_like(labels, 4), "single label 4"),
        (lambda labels: labels[:-1], "500 images and 499 labels"),
    ],
)
def test_labels_that_cannot_be_used(change: object, says: str) -> None:
    logits, labels = answers(500, 0.1)
    with pytest.raises(MeasurementError, match=says):
        compare_accuracy(logits, logits, change(labels))  # type: ignore[operator]


class Some:
    """Images of a data set that is only numbers."""

    labels = None
    classes = None
    sha256 = "0"

    def __init__(self, count: int) -> None:
        self.count = count

    def batches(self, size: int) -> Iterator[Float]:
        for start in range(0, self.count, size):
            yield np.arange(start, min(start + size, self.count), dtype=np.float32)[:, None]


def test_accuracy_keeps_the_order_and_names_the_image_that_went_wrong() -> None:
    seen: list[tuple[int, int]] = []
    logits = answers_of(lambda batch: np.tile(batch, 3), Some(70), progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(logits[:, 0], np.arange(70))
    assert seen[-1] == (70, 70)
    with pytest.raises(MeasurementError, match="int8 answered image 41 with NaN"):
        answers_of(lambda batch: np.where(batch == 41, np.nan, batch), Some(70), name="int8")
    with pytest.raises(MeasurementError, match="no images"):
        answers_of(lambda batch: batch, Some(0))


def test_answers_keep_the_rank_of_the_true_class() -> None:
    logits = np.array([[3, 2, 1], [0, 0, 0], [1, 2, 3]], np.float32)
    labels = np.array([1, 2, 2])
    assert rank_of(logits, labels).tolist() == [1, 2, 0]
    assert Answers.of("e", "d", logits, labels).top1 == (0, 0, 2)


class Means:
    """Answers with each channel's mean over the picture as it was given."""

    def __init__(self, how: Preprocess) -> None:
        self.manifest = SimpleNamespace(preprocess=how)

    def __call__(self, batch: Array) -> Float:
        return batch.mean((2, 3), dtype=np.float32)


def test_each_engine_is_given_the_pictures_as_it_preprocesses_them(tmp_path: Path) -> None:
    """An engine with a mean of its own was once fed what the first engine takes, and judged by its answers to that."""
    for index, level in enumerate((30, 200)):
        Image.new("RGB", (12, 12), (level, 90, 10)).save(tmp_path / f"{index}.png")
    first, other = Preprocess(size=(8, 8)), Preprocess(size=(4, 4), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images = open_data(str(tmp_path), first)
    np.testing.assert_allclose(answers_of(Means(other), images)[:, 0], [30 / 255, 200 / 255], rtol=1e-6)
    np.testing.assert_array_equal(answers_of(Means(first), images), answers_of(lambda batch: batch.mean((2, 3)), images))
    np.save(tmp_path / "ready.npy", np.zeros((3, 3, 8, 8), np.float32))
    ready = open_data(str(tmp_path / "ready.npy"), first)
    assert len(answers_of(Means(first), ready)) == 3
    with pytest.raises(DataError, match="cannot be preprocessed in another way"):
        answers_of(Means(other), ready)
