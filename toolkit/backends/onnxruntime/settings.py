"""Settings of ONNX Runtime that depend on the machine and its other load: chosen by measurement when an engine is built."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from toolkit.disk import cache
from toolkit.disk.files import sha256_bytes
from toolkit.recipe import Build
from toolkit.types import Array, Frozen

ROUNDS, SECONDS = 5, 0.08  # of each candidate
ENOUGH = 3.0  # seconds in all, after which no further round begins
SITTINGS, PAUSE = 3, 1.0
GAIN = 0.02  # more threads, and threads that spin, use up cores that others may want: they have to bring at least so much
Settings = dict[str, Any]


def candidates(build: Build, cores: int) -> list[Settings]:
    """What a recipe leaves open, the most modest first: one thread or all cores; threads that sleep within a call, or spin."""
    found = []
    for threads in (build.threads,) if build.threads else (1, cores):
        for spin in (False, True) if build.spin is None else (build.spin,):
            settings = {"threads": threads, "spin": spin and threads > 1}
            if settings not in found:
                found.append(settings)
    return found


class Choice(Frozen, frozen=True):
    """What was found faster, and the words that say so."""

    settings: Settings
    note: str


def choose(
    open_session: Callable[[Settings], Any], tried: list[Settings], batch: int = 1, key: str = ""
) -> tuple[Settings, tuple[str, ...]]:
    """The first of `tried` that none of the others beats by more than 2 % at `batch` images, and a note with every figure.

    `open_session` makes a session of the engine from settings. A small network is often faster on one thread: waking a second
    one for each layer costs more than it computes. Where there is nothing to choose, nothing is run. `key` stands for the
    engine and the machine: a choice is kept under it, so that a repeated build gives the same bytes.
    """
    if len(tried) < 2:
        return tried[0], ()
    if not key:
        choice = measure(open_session, tried, batch)
    else:
        name = sha256_bytes(f"{key} {batch} {tried}".encode())[:24]
        try:
            choice = msgspec.json.decode(cache.find("threads", name) or b"", type=Choice)
        except msgspec.DecodeError:
            choice = measure(open_session, tried, batch)
            cache.keep("threads", name, msgspec.json.encode(choice))
    return choice.settings, (choice.note,)


def measure(open_session: Callable[[Settings], Any], tried: list[Settings], batch: int) -> Choice:
    """The candidates take turns, each alone and freshly opened. The lower quartile counts, as other load only adds time.

    A host may hold a virtual machine's cores apart for seconds, in which several threads gain nothing. So where they lose,
    there are further sittings, a pause apart, and the best of each candidate counts.
    """
    best = _sitting(open_session, tried, batch, 0)
    for seed in range(1, SITTINGS):
        if _modest(best) == len(tried) - 1:
            break
        time.sleep(PAUSE)
        best = [min(pair) for pair in zip(best, _sitting(open_session, tried, batch, seed), strict=True)]
    chosen = tried[_modest(best)]
    figures = (f"{_words(settings)} {quartile:.3g} ms" for settings, quartile in zip(tried, best, strict=True))
    note = f"{_words(chosen)}: at batch {batch}, where it was built, a call took {', '.join(figures)}"
    return Choice(settings=chosen, note=note)


def _modest(times: list[float]) -> int:
    """The first that none of the others beats by more than `GAIN`."""
    return next(i for i, each in enumerate(times) if each <= min(times) * (1 + GAIN))


def _sitting(open_session: Callable[[Settings], Any], tried: list[Settings], batch: int, seed: int) -> list[float]:
    """The lower quartile of each, in milliseconds."""
    random = np.random.default_rng(seed)
    times: list[list[float]] = [[] for _ in tried]
    end = time.perf_counter() + ENOUGH
    for done in range(ROUNDS):
        if done and time.perf_counter() > end:
            break
        for index in random.permutation(len(tried)):
            times[index] += _time(open_session(tried[index]), batch)
    return [1e3 * float(np.quantile(each, 0.25)) for each in times]


def _words(settings: Settings) -> str:
    threads = f"{settings['threads']} thread{'s' if settings['threads'] > 1 else ''}"
    return threads + (" spinning" if settings["spin"] else "")


def _time(live: Any, batch: int) -> Iterator[float]:
    """Seconds of each call over `SECONDS`, one at least, after two that do not count."""
    spec = live.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    kind = np.uint8 if spec.type == "tensor(uint8)" else np.float32
    image: Array = np.zeros([shape[0] if isinstance(spec.shape[0], int) else batch, *shape[1:]], kind)
    for _ in range(2):
        live.run(None, {spec.name: image})
    end = time.perf_counter() + SECONDS
    now = time.perf_counter()
    while now < end:
        start = time.perf_counter()
        live.run(None, {spec.name: image})
        now = time.perf_counter()
        yield now - start
