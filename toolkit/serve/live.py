"""Live: one opened engine, its batcher, and who uses it. Model: a name and a version, whose engine may be replaced."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from toolkit.cpu import cores
from toolkit.engine.engine import Engine
from toolkit.harness.batching import Batching, batching_of
from toolkit.harness.results import Results
from toolkit.runtime.batcher import Batcher
from toolkit.runtime.runner import Runner
from toolkit.serve.limits import Settings, Source
from toolkit.serve.metrics import Gauges
from toolkit.serve.refused import Refused
from toolkit.serve.sweep import rate, sweep
from toolkit.types import ON_CPU, Array, Float, noise


class Live:
    """An engine that answers. It is closed when it is retired and the last of its users has gone."""

    def __init__(self, runner: Runner, batching: Batching, queue: int, gauges: Gauges) -> None:
        self.runner, self.batching, self.queue, self.gauges = runner, batching, queue, gauges
        self.manifest = runner.manifest
        self.users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self.batcher = Batcher(
            runner,
            max_batch=full(batching),
            max_wait=batching.max_wait,
            workers=batching.instances,
            max_waiting=queue,
            ran=lambda ran: gauges.ran(ran, self.batcher.waiting),
        )
        gauges.opened(full(batching), batching.max_wait, queue)

    @property
    def seal(self) -> str:
        """Sixteen digits that tell this engine from every other, as a response's head names it."""
        return self.manifest.seal[:16]

    @contextmanager
    def used(self) -> Iterator[Live]:
        self.users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self.users -= 1
            if self.users == 0:
                self._unused.set()

    async def ask(self, images: Array) -> Float:
        """[n, ...] -> logits [n, columns], in a batch with others'. Raises BusyError, and what the engine raises."""
        answer = self.batcher.submit_batch(images)
        self.gauges.waiting(self.batcher.waiting)
        return await asyncio.wrap_future(answer)

    async def retire(self) -> None:
        """Answer all who asked, then close; whoever holds it may still ask."""
        await self._unused.wait()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        self.batcher.close()
        self.runner.close()


def open_live(engine: Engine, settings: Settings, gauges: Gauges, batching: Batching | None = None) -> Live:
    """Open, measure and warm an engine. With `batching` nothing is measured: what runs beside it would be measured too."""
    runner = engine.runner(**_options(engine, settings))
    try:
        batching = batching or _batching(engine, runner, settings)
        for size in {1, full(batching)}:  # what a first call makes lazily is made before anybody waits for it
            runner(noise(engine.manifest.inputs[0], size))
        return Live(runner, batching, _queue(engine, settings, batching), gauges)
    except BaseException:
        runner.close()
        raise


def _options(engine: Engine, settings: Settings) -> dict[str, Any]:
    """Threads on the CPU: as asked, or as built, but no more than this worker's share of the cores."""
    manifest = engine.manifest
    if settings.threads is not None:
        return {"threads": settings.threads}
    if manifest.target not in ON_CPU:
        return {}
    share, built = max(1, cores() // settings.workers), manifest.settings.get("threads")
    return {"threads": share} if not isinstance(built, int) or built > share else {}


def _batching(engine: Engine, runner: Runner, settings: Settings) -> Batching:
    """From the bench that was named, else from a sweep; what was asked for overrides it. Raises MeasurementError."""
    batch, wait = settings.max_batch, settings.max_wait
    if settings.results is not None:
        found = batching_of(engine.manifest, Results.read(settings.results))
    elif batch is None or wait is None:
        found = sweep(runner, settings.bound, most=max(2, cores() // settings.workers))
    else:
        found = Batching(max_batch=batch)
    asked = [f"{name} as asked" for name, value in (("batch", batch), ("wait", wait)) if value is not None]
    if asked:
        preferred = found.preferred if batch is None else (batch,)
        longest = found.max_wait if wait is None else wait
        changes = {"preferred": preferred, "max_wait": longest, "rate": None, "how": (*asked, *found.how)}
        found = msgspec.structs.replace(found, **changes)
    return found if found.rate else msgspec.structs.replace(found, rate=rate(runner, full(found)))


def full(batching: Batching) -> int:
    """How many images make a batch full."""
    return max(batching.preferred, default=1)


def _queue(engine: Engine, settings: Settings, batching: Batching) -> int:
    """How many images may wait: what the engine answers in `patience`, and no more bytes than allowed."""
    limits, spec = settings.limits, engine.manifest.inputs[0]
    image = np.dtype(spec.dtype).itemsize * math.prod(size for size in spec.shape[1:] if isinstance(size, int))
    held = max(1, limits.queue_bytes // image)
    if limits.queue is not None:
        return min(limits.queue, held)
    return min(max(4 * full(batching), round((batching.rate or 0.0) * limits.patience)), held)


class Model:
    """One name and version. Which engine answers for it may change; a request is answered by one engine from start to end."""

    def __init__(self, name: str, version: str, source: Source, live: Live) -> None:
        self.name, self.version, self.source = name, version, source
        self.live: Live | None = live
        self.told = False  # whether `reason` was logged
        self.reason = ""  # why there is none, or why the last order to load another was not followed

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def label(self) -> str:
        return f"{self.name} version {self.version}"

    def ready(self) -> Live:
        """Raises Refused."""
        if self.live is None:
            raise Refused(503, f"the model {self.label} is not loaded", "unloaded")
        return self.live

    def exchange(self, live: Live | None) -> Live | None:
        """Put another engine in place; gives back the one that was there, to be retired."""
        old, self.live = self.live, live
        return old
