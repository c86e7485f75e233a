"""TuneResult: the winner of a search and everything that was weighed; it writes the winning recipe, with the reasons."""

from __future__ import annotations

from pathlib import Path

from toolkit.recipe import Recipe
from toolkit.recipe.write import recipe_toml
from toolkit.tuning.trial import Sensitivity, Trial
from toolkit.types import Frozen, one_line


class TuneResult(Frozen, frozen=True):
    """`front` is the Pareto front of latency and accuracy, fastest first; `predicted` says that a model told the latency."""

    recipe: Recipe
    winner: Trial
    trials: tuple[Trial, ...]
    finalists: tuple[Trial, ...]
    sensitivity: tuple[Sensitivity, ...]
    reasons: tuple[str, ...]
    evaluations: int
    predicted: bool

    @property
    def front(self) -> tuple[Trial, ...]:
        """The finalists that no other beats in both time and SNR."""
        ordered = sorted(self.finalists, key=lambda trial: (trial.time, -trial.snr))
        front: list[Trial] = []
        for trial in ordered:
            if not front or trial.snr > front[-1].snr:
                front.append(trial)
        return tuple(front)

    def toml(self, folder: Path) -> str:
        """The winning recipe with its reasons, to be written into `folder`: paths become relative to it."""
        head = f"# Tuned from {self.recipe.name} with {self.evaluations} evaluated graphs. Why:"
        reasons = [f"#   {one_line(line)}" for line in self.reasons]
        return "\n".join([head, *reasons, "", recipe_toml(self.winner.recipe, folder)])
