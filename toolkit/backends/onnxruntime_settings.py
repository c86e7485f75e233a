"""Settings of ONNX Runtime that depend on the machine and its other load: chosen by measurement when an engine is built."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.types import Array

ROUNDS, SECONDS = 5, 0.25  # of each candidate
GAIN = 0.02  # spinning burns idle cores: it has to bring at least so much


def choose_spin(
    open_session: Callable[[dict[str, Any]], Any], settings: dict[str, Any], seed: int = 0
) -> tuple[dict[str, Any], str]:
    """`settings` with `spin` as it is faster at batch 1, and a note with both figures.

    `open_session` makes a session of the engine from settings. Threads that spin between calls answer the next one sooner, and
    slow whatever else runs in the meantime; so the candidates take turns, each alone and freshly opened. The lower quartile
    counts, as other load only ever adds time.
    """
    random = np.random.default_rng(seed)
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for spin in random.permutation([False, True]).tolist():
            times[spin] += _time(open_session({**settings, "spin": spin}))
    wait, spun = (1e3 * float(np.quantile(times[spin], 0.25)) for spin in (False, True))
    better = spun < wait * (1 - GAIN)
    figures = f"{spun:.3g} ms a call with spinning threads, {wait:.3g} ms with waiting ones, at batch 1 where it was built"
    return {**settings, "spin": better}, f"threads {'spin' if better else 'wait'}: {figures}"


def _time(live: Any) -> list[float]:
    """Seconds of each call over a quarter of a second, after two that do not count."""
    spec = live.get_inputs()[0]
    image: Array = np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], np.float32)
    for _ in range(2):
        live.run(None, {spec.name: image})
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while not seconds or time.perf_counter() < end:
        start = time.perf_counter()
        live.run(None, {spec.name: image})
        seconds.append(time.perf_counter() - start)
    return seconds
