"""Amounts: numbers as people read them, with their intervals. The same in a table, a page, Markdown and a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def milliseconds(value: float | None) -> str:
    """0.2041 -> '0.204'; three digits or so."""
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def times(ratio: float | None) -> str:
    """2.1345 -> '2.13x'."""
    if ratio is None:
        return ""
    form = ".2g" if ratio < 0.1 else ".2f" if ratio < 10 else ".1f" if ratio < 100 else ".0f"
    return f"{ratio:{form}}x"


def rate(value: float | None) -> str:
    """Images a second."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def size(count: float | None) -> str:
    """Bytes: 2816512 -> '2.82 MB'."""
    if count is None:
        return "-"
    for unit, letters in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {letters}"
    return f"{count:.0f} B"


def short(value: float) -> str:
    """Four digits: a threshold, the end of a range."""
    return f"{value:.4g}"


def span(ends: Sequence[float] | None, form: Callable[[float], str]) -> str:
    """(0.1923, inf) -> '[0.192, ∞)'; empty where there is none."""
    if ends is None:
        return ""
    low, high = ends
    if not math.isfinite(high) and low <= 0:
        return ""
    return f"[{form(low)}, {form(high)}]" if math.isfinite(high) else f"[{form(low)}, ∞)"


def half(value: float | None, ends: Sequence[float] | None) -> str:
    """The wider side of an interval as a share of the value: '±7%'; '±?' where an end is not bounded."""
    if not value or ends is None:
        return ""
    low, high = ends
    if not math.isfinite(high):
        return "±?"
    share = max(high - value, value - low) / value
    return f"±{share:.0%}" if share >= 0.095 else f"±{share:.1%}"
