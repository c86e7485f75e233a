"""Scale: numbers to positions on paper, and the round numbers worth printing beside an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolkit.types import Frozen

STEPS = (1.0, 2.0, 5.0)


class Axis(Frozen, frozen=True):
    """What an axis means. `ticks` fixes the printed values (batch sizes); `low` and `high` widen the range to hold them."""

    label: str
    log: bool = False
    ticks: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None


class Scale(Frozen, frozen=True):
    """Values `low`..`high` on positions `start`..`end` (pixels of the drawing), linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The position of a value."""
        low, high, value = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def fit(values: Sequence[float], axis: Axis, start: float, end: float) -> Scale:
    """A scale that holds all finite `values` and the axis' own bounds with 4 % of air; a single value gets room on both sides."""
    held = [*values, *axis.ticks, *(v for v in (axis.low, axis.high) if v is not None)]
    held = [v for v in held if math.isfinite(v) and (v > 0 or not axis.log)]
    low, high = (min(held), max(held)) if held else (1.0, 10.0)
    if axis.log:
        air = max((high / low) ** 0.04, 1.02 if high > low else 1.5)
        low, high = low / air, high * air
    else:
        air = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        low, high = low - air, high + air
    low = axis.low if axis.low is not None and axis.low <= min(held, default=low) else low
    high = axis.high if axis.high is not None and axis.high >= max(held, default=high) else high
    return Scale(low=low, high=high, start=start, end=end, log=axis.log)


def ticks(scale: Scale, about: int = 5) -> list[float]:
    """Round values inside the scale: 1, 2 and 5 times powers of ten, near `about` of them."""
    if not scale.log or scale.high / scale.low < 3:
        return _linear(scale.low, scale.high, about)
    decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    for steps in (STEPS, (1.0, 3.0), (1.0,)):
        found = [s * 10.0**d for d in decades for s in steps if scale.low <= s * 10.0**d <= scale.high]
        if len(found) <= about + 2:
            return found
    return found[:: math.ceil(len(found) / about)]


def _linear(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((s * power for s in (*STEPS, 10.0) if s * power >= rough), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def label(value: float) -> str:
    """A tick or a table figure in four digits at most: 0.25, 3, 1200 -> 1.2k."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}"
