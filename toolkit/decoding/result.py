"""What parity found, for people and for machines."""

from __future__ import annotations

from toolkit.harness.verdict import State, Verdict
from toolkit.types import Frozen

LIBRARIES = "Install what it needs: pip install 'resnet-deploy[parity]'"


class Flip(Frozen, frozen=True):
    """One image that is answered otherwise; `label` is the right class, where it is known."""

    image: str
    before: str
    after: str
    label: str | None = None


class Outcome(Frozen, frozen=True):
    """One way. `changed` answers of all, the share of them with its exact two-sided 95 % interval; `levels`: mean |difference| of
    the pixels that the network sees, in gray levels of 255."""

    way: str
    what: str
    changed: int
    interval: tuple[float, float]
    levels: float
    verdict: Verdict
    flips: tuple[Flip, ...]

    @property
    def accepted(self) -> bool:
        """Whether it passes for the engine's own preprocessing, within the recipe's `[accept]`."""
        return self.verdict.accepted


class Parity(Frozen, frozen=True):
    """What each way of decoding and resizing changes in an engine's answers; `missing` ways lack a library here."""

    engine: str
    how: str  # measured | predicted: why
    data: str
    images: int
    labeled: bool
    outcomes: tuple[Outcome, ...]
    missing: dict[str, str] = {}  # way -> why it could not be tried
    remarks: tuple[str, ...] = ()

    def having(self, state: State) -> list[str]:
        """The ways of which the verdict is that."""
        return [one.way for one in self.outcomes if one.verdict.state == state]

    def __str__(self) -> str:
        lines = [f"{self.engine} on {self.images} images of {self.data}: answers that another way to decode and resize changes"]
        for one in self.outcomes:
            low, high = (f"{share:.2%}" for share in one.interval)
            lines.append(f"{one.way}: {one.changed} changed [{low}, {high}]; {one.verdict.text}")
        lines += [f"{way}: not tried, {why}" for way, why in self.missing.items()]
        return "\n  ".join((*lines, self.how, *self.remarks))
