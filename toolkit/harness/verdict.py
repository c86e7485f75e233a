"""Verdict: what a paired comparison of two engines' answers allows one to say."""

from __future__ import annotations

from typing import Literal

from toolkit.harness.paired import PairedTest, unchanged, upper_share
from toolkit.types import Frozen

Word = Literal["same", "better", "worse", "cannot tell", "agreement only"]
State = Literal["accepted", "undecided", "refused"]
MOST = 10_000_000  # images that anyone could think of collecting


class ClassChange(Frozen, frozen=True):
    """One class: the share of its images answered rightly by each, and McNemar's p, corrected for all classes."""

    label: int
    name: str
    images: int
    reference: float
    engine: float
    p: float


class Verdict(Frozen, frozen=True):
    """`engine` against `reference` on the same images. Shares are 0 to 1; `margin` is in percentage points."""

    engine: str
    reference: str
    images: int
    margin: float
    min_agreement: float
    agreement: float  # share of equal top-1 answers
    mean_logit_error: float  # mean |difference| over all logits
    worst_logit_error: float
    worst_image: int
    disagreements: tuple[int, ...]  # images whose top-1 answers differ
    seed: int
    margins: tuple[float, ...] = ()  # of each disagreement: how much likelier the reference held its own class than the engine's
    top1: tuple[float, float] | None = None  # reference, engine
    top5: tuple[float, float] | None = None
    test: PairedTest | None = None  # None without labels
    changes: tuple[ClassChange, ...] = ()
    snr: float | None = None  # of all outputs, in dB; 120 where nothing differs
    held_back: bool = False  # on calibration images that gave neither ranges nor settings; they count as unlabeled
    labels: int = 0  # of a multi-label network; 0: each image has one class
    lowest_label: tuple[str, float] | None = None  # the label that agrees least, and the share of images that it agrees on
    shared_yes: float | None = None  # of all yes answers of either, the share given by both; None where neither gave any

    def __post_init__(self) -> None:
        if not len(self.margins) <= len(self.disagreements) <= self.images or not 0 <= self.agreement <= 1:
            raise ValueError("a verdict has no more disagreements than images, and an agreement of 0 to 1")

    @property
    def word(self) -> Word:
        """same: the loss is shown to be below the margin (one-sided 95 %). better, worse: the 95 % interval leaves out 0."""
        if self.test is None:
            return "agreement only"
        if not self.disagreements:
            return "same"  # the same answers, be they few (`caveat`)
        if self.test.lower > -self.margin / 100:
            return "better" if self.test.interval[0] > 0 and self.test.p < 0.05 else "same"
        return "worse" if self.test.interval[1] < 0 and self.test.p < 0.05 else "cannot tell"

    @property
    def accepted(self) -> bool:
        """Whether the engine may be used in place of the reference."""
        return self.agreement >= self.min_agreement and self.word in ("same", "better", "agreement only")

    @property
    def undecided(self) -> bool:
        """Whether it is not accepted for want of images alone: what was seen neither shows the budget met nor shows it missed."""
        if self.accepted or self.labels or self.word == "worse":
            return False
        return self.agreement >= self.min_agreement or self.highest >= self.min_agreement

    @property
    def state(self) -> State:
        """What follows of it, in one word."""
        return "accepted" if self.accepted else "undecided" if self.undecided else "refused"

    @property
    def short(self) -> str:
        """The word alone where it is accepted, else the state and what is short of it: `refused: agreement`."""
        short = "agreement" if self.agreement < self.min_agreement else self.word
        return self.word if self.accepted else f"{self.state}: {short}"

    @property
    def highest(self) -> float:
        """The highest agreement that the images allow: a one-sided bound of 95 %."""
        return upper_share(round(self.agreement * self.images), self.images)

    @property
    def remedy(self) -> str:
        """What would decide it."""
        if self.held_back:
            return "Name more calibration images, or labeled ones in `accept.data`; or lower `accept.min_agreement`"
        if self.agreement < self.min_agreement:
            return "Name more images in `accept.data`, or lower `accept.min_agreement`"
        return "Name more images in `accept.data`, or set a wider `accept.max_top1_drop`"

    @property
    def caveat(self) -> str:
        """Of equal answers on fewer images than show the margin: said, as the engine is accepted."""
        if self.test is None or self.disagreements or self.test.lower > -self.margin / 100:
            return ""
        enough = unchanged(self.margin / 100)
        more = f"; {enough} show it with 95 % confidence" if enough <= MOST else ""
        return f"; no answer differs, but {self.images} images are too few to show such a margin{more}"

    @property
    def distance(self) -> str:
        """How far the engine's outputs are from the reference's, in words."""
        snr = "" if self.snr is None else f", SNR {self.snr:.1f} dB"
        what = "calibration images held back" if self.held_back else "images"
        return f"agreement {self.agreement:.2%}{snr} on {self.images} {what}"

    @property
    def text(self) -> str:
        """One line, in percentage points."""
        agree = f"agreement {self.agreement:.2%}"
        if self.agreement < self.min_agreement:
            agree += f", below {self.min_agreement:.2%}"
            agree += f" (cannot tell: it may be as high as {self.highest:.2%})" if self.undecided else ""
        if self.lowest_label is not None:
            yes = (
                "no image gets any label"
                if self.shared_yes is None
                else f"{self.shared_yes:.2%} of the labels given are given by both"
            )
            label, share = self.lowest_label
            return f"{agree}: of {self.labels} labels '{label}' agrees least, on {share:.2%} of {self.images} images; {yes}"
        if self.held_back:
            snr = "" if self.snr is None else f", SNR {self.snr:.1f} dB"
            return f"unlabeled: {agree}{snr} on {self.images} calibration images held back"
        if self.test is None:
            return f"{agree} on {self.images} unlabeled images"
        points = self.test.difference * 100
        low, high = (100 * x for x in self.test.interval)
        span = f"[{low:+.2f}, {high:+.2f}]"
        if self.word == "same":
            return f"same within {self.margin:g} points: {points:+.2f} {span}; {agree}{self.caveat}"
        if self.word in ("better", "worse"):
            return f"{self.word} by {abs(points):.2f} {span}; {agree}"
        more = f"{self.test.needed} would do" if self.test.needed <= MOST else f"more than {MOST} would do"
        return f"cannot tell with {self.images} images: {more}; {points:+.2f} {span}; {agree}"
