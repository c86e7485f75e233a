"""Weigh: the scales of an old calibration cache against scales of today, paired, on images that neither set was drawn from here.

Both graphs are typed for the recipe's target and answer the calibration images that are held back, rounded as the target rounds.
New scales are kept where they agree with the FP32 network on surely more images (McNemar's exact test, 5 %), or, where no count
of images tells, bring the logits surely nearer (jackknife, one-sided 95 %) by more than 0.2 dB; old ones in all other cases, as
they have served.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from toolkit import pipeline
from toolkit.graph.gain import gain_of
from toolkit.graph.run import predicting_runner
from toolkit.graph.select import SURE, WORTH
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.paired import mcnemar
from toolkit.harness.verdict import Verdict
from toolkit.pipeline import Trip
from toolkit.recipe import Recipe
from toolkit.types import Float, Frozen, Stage, Target

LEVEL = 0.05


class Weighed(Frozen, frozen=True):
    """Which scales to keep, and why. `old` and `new` are verdicts against the FP32 network; `gain`: dB, and its standard error.

    `only_old`, `only_new`: images on which one of them alone agrees with the FP32 network; `recipe` has the new scales.
    """

    keep: Literal["old", "new"]
    why: str
    old: Verdict
    new: Verdict
    only_old: int
    only_new: int
    p: float
    gain: tuple[float, float]
    recipe: Recipe

    @property
    def text(self) -> str:
        """One line: the decision, and what it rests on."""
        shares = f"{self.old.agreement:.2%} with the old scales, {self.new.agreement:.2%} with new ones"
        return f"keep the {self.keep} scales: {self.why}. Of {self.old.images} held-back images agree with FP32: {shares}"


def weigh(old: Recipe, new: Recipe, stage: Stage) -> Weighed | None:
    """`old` has the cache's ranges, `new` calibrates on the same images. None where there are too few to hold any back."""
    target = Target.parse_many(old.build.target)[0]
    fresh = pipeline.prepare(new, stage)
    if fresh.judged is None or fresh.truth is None:
        return None
    kept = pipeline.prepare(old, stage, proof=False, like=fresh)._replace(judged=fresh.judged, truth=fresh.truth)
    before, after = (_answers(trip, target, name, stage) for trip, name in ((kept, "the old scales"), (fresh, "the new scales")))
    truth, accept, meaning = fresh.truth, new.accept, fresh.source.reference.manifest.meaning
    verdicts = [
        compare_accuracy(truth, answers, None, accept, name=name, meaning=meaning)
        for name, answers in (("the old scales", before), ("the new scales", after))
    ]
    wrong_old, wrong_new = (set(verdict.disagreements) for verdict in verdicts)
    only_old, only_new = len(wrong_new - wrong_old), len(wrong_old - wrong_new)
    p = mcnemar(only_old, only_new)
    gain = gain_of(_noise(before, truth), _noise(after, truth))
    keep, why = decide(only_old, only_new, p, gain)
    return Weighed(
        keep=keep, why=why, old=verdicts[0], new=verdicts[1], only_old=only_old, only_new=only_new, p=p, gain=gain, recipe=new
    )


def decide(only_old: int, only_new: int, p: float, gain: tuple[float, float]) -> tuple[Literal["old", "new"], str]:
    """See this module's head."""
    if p < LEVEL:
        better, worse = max(only_old, only_new), min(only_old, only_new)
        why = f"{better} images agree with them alone, {worse} with the others alone (McNemar p = {p:.2g})"
        return ("new" if only_new > only_old else "old"), why
    nearer, error = gain
    if nearer > WORTH and nearer > SURE * error:
        return "new", f"the logits are {nearer:.1f} dB nearer, and no image tells otherwise (McNemar p = {p:.2g})"
    return "old", f"nothing tells the new from them ({nearer:+.1f} dB, standard error {error:.1f}; McNemar p = {p:.2g})"


def _answers(trip: Trip, target: Target, name: str, stage: Stage) -> Float:
    assert trip.judged is not None
    live = predicting_runner(pipeline.typed(trip, target), target)
    return answers_of(live, trip.judged, name=name, progress=stage(f"answers of {name}"))


def _noise(answers: Float, truth: Float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    noise: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = ((answers.astype(np.float64) - truth) ** 2).sum(axis=1)
    return noise
