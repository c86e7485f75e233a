"""Gain: by how much one way to quantize is nearer to FP32 than another, and how sure that is over the images."""

from __future__ import annotations

import numpy as np

from toolkit.graph.channels import Real


def gain_of(before: Real, after: Real) -> tuple[float, float]:
    """By how many dB the summed noise falls, and the jackknife's standard error of that over the images (Efron, 1982)."""
    if not np.isfinite(after).all() or after.sum() <= 0 or before.sum() <= 0:
        return (0.0 if not np.isfinite(after).all() or before.sum() <= 0 else np.inf), 0.0
    if not np.isfinite(before).all():
        return np.inf, 0.0
    n = len(before)
    gain = 10 * np.log10(before.sum() / after.sum())
    if n < 2:
        return float(gain), np.inf
    without = _logs_without(before) - _logs_without(after)
    return float(gain), float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def _logs_without(noise: Real) -> Real:
    """Of each image in turn, the dB of what the others sum to: not as a difference, which one image could swallow."""
    others = np.where(np.eye(len(noise), dtype=bool), 0.0, noise).sum(axis=1)
    logs: Real = 10 * np.log10(np.maximum(others, np.finfo(np.float64).tiny))
    return logs
