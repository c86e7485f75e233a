"""Outputs: what the columns of an answer mean, and how a class, a probability or a yes is read off them. numpy only.

| meaning | columns | the class answered | probability |
|---|---|---|---|
| `logits` | one a class | the largest | softmax |
| `probabilities` | one a class | the largest | as it is |
| `log-probabilities` | one a class | the largest | exp |
| `binary-logit` | one | 1 above the threshold, by default 0 | sigmoid |
| `binary-probability` | one | 1 above the threshold, by default 0.5 | as it is |
| `multilabel-logits` | one a label | each label above the threshold, by default 0 | sigmoid of each |
| `multilabel-probabilities` | one a label | each label above the threshold, by default 0.5 | as they are |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.types import Array, Float, Frozen, Meaning


class Outputs(Frozen, frozen=True):
    """`threshold` is on the scale of the columns; absent: 0 for logits, 0.5 for probabilities."""

    are: Meaning = "logits"
    threshold: float | None = None

    @property
    def binary(self) -> bool:
        """One column tells two classes apart."""
        return self.are.startswith("binary")

    @property
    def multilabel(self) -> bool:
        """Each column is a yes or a no of its own; there is no top-1."""
        return self.are.startswith("multilabel")

    @property
    def limit(self) -> float:
        """A column above it is a yes."""
        return self.threshold if self.threshold is not None else 0.0 if self.are.endswith(("logit", "logits")) else 0.5

    @property
    def assumption(self) -> str | None:
        """What to say where nobody said what the columns are, and other networks end in the same way."""
        keys = "`reference.outputs_are` and `reference.threshold` say otherwise"
        if self.binary:
            kind = "logit" if self.are == "binary-logit" else "probability"
            what = f"the single column is taken as the {kind} of class 1 of two, which is answered above {self.limit:g}: {keys}"
            return f"{what}. A regression, whose number is no class, is not supported"
        if self.multilabel:
            what = f"the columns are taken as labels, of which an image may have several, each a yes above {self.limit:g}"
            return f'{what}: {keys}, such as "probabilities" where each image has one class'
        return None

    def classes(self, columns: int) -> int:
        """How many classes, or labels, that many columns stand for."""
        return 2 if self.binary else columns

    def scores(self, outputs: Float) -> Float:
        """[n, columns] -> [n, classes], the largest the class answered; a binary column gets its threshold beside it."""
        if not self.binary:
            return outputs
        return np.concatenate([np.full_like(outputs, self.limit), outputs], axis=1)

    def yes(self, outputs: Float) -> NDArray[np.bool_]:
        """[n, columns] -> bool: which labels a multi-label network answers with yes."""
        return outputs > self.limit

    def probabilities(self, outputs: Float) -> Array:
        """[n, columns] -> float64 [n, classes]."""
        values = outputs.astype(np.float64)
        if self.are == "logits":
            with np.errstate(invalid="ignore"):  # of infinities, whose probabilities are NaN
                exponent = np.exp(values - values.max(axis=1, keepdims=True))
            return exponent / exponent.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
        if self.are == "log-probabilities":
            return np.exp(values)
        if self.are in ("binary-logit", "multilabel-logits"):
            values = 0.5 * (1 + np.tanh(values / 2))  # the sigmoid, without overflow
        return np.concatenate([1 - values, values], axis=1) if self.binary else values

    def order(self, outputs: Float, most: int | None = None) -> NDArray[np.int64]:
        """[n, columns] -> int64 [n, `most`, or all]: classes from the one answered down; among equals the lower comes first."""
        if most is not None and most < 1:
            raise InputError(f"the first {most} classes are none", remedy="Ask for 1 or more")
        return np.argsort(-self.scores(outputs), axis=1, kind="stable")[:, :most]
