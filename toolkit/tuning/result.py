"""TuneResult: the winner of a search and everything that was weighed; it writes the winning recipe, with the reasons."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from toolkit.recipe import Recipe
from toolkit.tuning.trial import Sensitivity, Trial
from toolkit.types import Frozen, one_line

PATHS = {"reference": {"weights", "onnx", "classes"}, "calibration": {"data", "ranges"}, "accept": {"data"}}  # of a recipe


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


def recipe_toml(recipe: Recipe, folder: Path) -> str:
    """A recipe as TOML, to be written into `folder`: paths become relative to it. It names its target, and of a model's file what
    was said of its pictures, default or not; what was assumed is left away, to be assumed again, and told, when it is read."""
    values = recipe.to_dict()
    assumed = values.pop("assumed", ())
    if recipe.reference.onnx is not None or recipe.assumed:
        whole = msgspec.to_builtins(recipe.preprocess)
        said = {key: whole[key] for key in ("size", "color", "scale", "mean", "std") if key not in assumed}
        values["preprocess"] = said | {key: v for key, v in values.get("preprocess", {}).items() if key not in assumed}
    values["build"] = {"target": recipe.build.target, **values.get("build", {})}
    return "\n".join(_lines(_relative(values, folder), ())) + "\n"


def _relative(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Only what `Recipe.resolve` made absolute: the names that PyTorch gives tensors begin with a slash as well."""
    made = dict(values)
    for table, keys in PATHS.items():
        for key in keys & values.get(table, {}).keys():
            if os.path.isabs(path := values[table][key]):
                made[table] = {**made[table], key: os.path.relpath(path, folder)}
    return made


def _lines(table: dict[str, Any], where: tuple[str, ...]) -> list[str]:
    """TOML, a table under its header after the plain keys. JSON writes strings, numbers and arrays just as TOML does."""
    lines = [f"{_key(key)} = {_value(item)}" for key, item in table.items() if not isinstance(item, dict)]
    for key, item in table.items():
        if item and isinstance(item, dict):  # an empty table says nothing
            inner = (*where, _key(key))
            lines += ["", f"[{'.'.join(inner)}]", *_lines(item, inner)]
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(item: Any) -> str:
    if isinstance(item, (list, tuple)):
        return f"[{', '.join(_value(part) for part in item)}]"
    if item == math.inf:  # of a budget that allows anything; JSON has no such number
        return "inf"
    return msgspec.json.encode(item).decode().replace("\x7f", "\\u007f")  # the one character that JSON leaves and TOML does not
