"""Standing: how well the reference itself answers. An engine can only agree with it; where it is wrong, so is the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from toolkit.harness.answers import Labels
from toolkit.images.dataset import Images
from toolkit.outputs import Outputs
from toolkit.recipe import Reference
from toolkit.reference.source import Source
from toolkit.types import Array, Float, Frozen

SURE = 2.33  # standard errors; one-sided, 99 %
USUAL = 0.4  # of the way from guessing to perfect; trained classifiers are beyond it
PUBLISHED = {  # top-1 in percent on ImageNet's validation images, as torchvision's weight enums state it
    ("resnet18", "IMAGENET1K_V1"): 69.758,
    ("resnet34", "IMAGENET1K_V1"): 73.314,
    ("resnet50", "IMAGENET1K_V1"): 76.130,
    ("resnet50", "IMAGENET1K_V2"): 80.858,
    ("resnet101", "IMAGENET1K_V1"): 77.374,
    ("resnet101", "IMAGENET1K_V2"): 81.886,
    ("resnet152", "IMAGENET1K_V1"): 78.312,
    ("resnet152", "IMAGENET1K_V2"): 82.284,
}
SHORT = 3.0  # points below the published figure: a subset may be harder, another decoder costs less than one


class Standing(Frozen, frozen=True):
    """`top1` and `guessing`, what naming the most common class would reach, are shares; None without labels."""

    images: int
    top1: float | None = None
    guessing: float | None = None
    doubt: str | None = None  # why its answers should not be trusted

    @property
    def trusted(self) -> bool:
        """Whether labels and answers seem to count the same classes: nothing was compared, or the top-1 is far above guessing."""
        if self.top1 is None or self.guessing is None or self.doubt is None:
            return True
        return self.top1 - self.guessing >= USUAL * (1 - self.guessing)

    @property
    def text(self) -> str:
        """One line; one that starts with WARNING where there is a doubt."""
        if self.top1 is None:
            return f"reference top-1 unknown: {self.doubt}"
        said = f"reference top-1 {self.top1:.2%} on {self.images} labeled images"
        return f"WARNING: {said}: {self.doubt}" if self.doubt else said


def standing_of(source: Source, reference: Reference, images: Images | None, truth: Float | None) -> Standing:
    """From the reference's answers to the images of `[accept]`, where there are any."""
    manifest = source.reference.manifest
    labels, names = (images.labels, images.classes) if images is not None else (None, None)
    usual = PUBLISHED.get((reference.arch or "", (reference.weights or "").removeprefix("torchvision:")))
    return standing(truth, labels, manifest.meaning, manifest.classes or names, usual)


def standing(
    truth: Float | None, labels: Labels | None, meaning: Outputs, names: Sequence[str] | None = None, usual: float | None = None
) -> Standing:
    """From the reference's answers [n, columns] and the labels [n]. `usual`: the published top-1 in percent."""
    if truth is None:
        return Standing(images=0, doubt="the recipe has no images in `[accept]`")
    if meaning.multilabel:
        return Standing(images=len(truth), doubt="each image may have several labels")
    if labels is None:
        return Standing(images=len(truth), doubt="the images of `[accept]` have no labels")
    scores = meaning.scores(truth)
    answers, n = scores.argmax(axis=1), len(labels)
    top1 = float((answers == labels).mean())
    guessing = float(max(np.bincount(labels).max() / n, 1 / scores.shape[1]))
    return Standing(images=n, top1=top1, guessing=guessing, doubt=_doubt(top1, guessing, answers, labels, names, usual))


def _doubt(
    top1: float, guessing: float, answers: Array, labels: Labels, names: Sequence[str] | None, usual: float | None
) -> str | None:
    n = len(labels)
    chance = top1 <= guessing + SURE * math.sqrt(guessing * (1 - guessing) / n)
    error = SURE * math.sqrt(max(top1 * (1 - top1), 1 / n) / n)
    if chance:
        what = f"that is not clearly better than guessing, {guessing:.2%}"
    elif (top1 + error - guessing) / (1 - guessing) < USUAL:
        what = "that is far below what trained classifiers reach"
    elif usual is not None and n >= 500 and 100 * (top1 + error) < usual - SHORT:
        what = f"its publisher states {usual:.2f}%"
    else:
        return None
    return f"{what}. {_cause(top1, answers, labels, names)}"


def _cause(top1: float, answers: Array, labels: Labels, names: Sequence[str] | None) -> str:
    """What most likely went wrong, by how answers and labels go together."""

    def called(index: int) -> str:
        return f"'{names[index]}'" if names is not None and index < len(names) else str(index)

    least = max(0.4, top1 + 0.3)
    for shift in (1, -1):
        share = float((answers == labels + shift).mean())
        if share >= least:
            remedy = "Set `reference.offset = 1`" if shift == 1 else "The labels start at 1, or the class names lack their first"
            return f"{share:.2%} of the answers are the class {'after' if shift == 1 else 'before'} the label's. {remedy}"
    most = {int(label): np.bincount(answers[labels == label]) for label in np.unique(labels)}
    share = sum(int(counts.max()) for counts in most.values()) / len(labels)
    common = {label: int(counts.argmax()) for label, counts in most.items()}
    if share >= least and len(set(common.values())) >= 0.9 * len(common) and len(labels) >= 3 * len(common):
        label, answer = next((label, answer) for label, answer in common.items() if label != answer)
        what = f"Label {called(label)} is mostly answered {called(answer)}, and other labels are permuted too"
        what += f": with the order fixed, {share:.2%} would be right"
        return f"{what}. The model counts its classes in another order than the names or folders do"
    favorite = int(np.bincount(answers).argmax())
    share = float((answers == favorite).mean())
    if share > 0.9 and float((labels == favorite).mean()) < 0.6:
        return (
            f"{share:.2%} of the images are answered {called(favorite)}. Check size, mean, std, scale and color in [preprocess]"
        )
    return "Check mean, std, scale and color in [preprocess], and the order of the classes"
