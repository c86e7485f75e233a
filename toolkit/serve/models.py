"""Models: all that a server serves, found by name and version, and replaced while it serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

from toolkit.engine.engine import Engine
from toolkit.engine.layout import read_manifest
from toolkit.errors import EngineError, ToolkitError
from toolkit.serve.limits import Settings, Source
from toolkit.serve.live import Live, Model, full, open_live
from toolkit.serve.log import say
from toolkit.serve.metrics import Metrics
from toolkit.serve.refused import Refused


class Models:
    """`open` reads every engine and gives it a name and a version; then each is found by the words of a request.

    Those words are keys of a dictionary and nothing else: what is read from disk are the paths that the server was started with.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.closing = False
        self._models: dict[str, dict[str, Model]] = {}
        self._order = asyncio.Lock()  # one swap at a time
        self._retiring: set[asyncio.Task[None]] = set()
        self._ordered: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Model]:
        for versions in self._models.values():
            yield from versions.values()

    def open(self) -> None:
        """Raises ToolkitError: an engine that cannot be opened, or two of one name and version."""
        try:
            for source, engine in [(source, Engine.open(source.path)) for source in self.settings.sources]:
                self._add(source, engine)
        except BaseException:
            self.close()
            raise

    def _add(self, source: Source, engine: Engine) -> None:
        name = source.name or engine.name
        versions = self._models.setdefault(name, {})
        version = source.version or str(max(map(int, versions), default=0) + 1)
        if version in versions:
            remedy = "Give each a version of its own: NAME@1=PATH NAME@2=PATH"
            raise EngineError(f"two engines are to be version {version} of '{name}'", remedy=remedy)
        live = open_live(engine, self.settings, self.metrics.gauges(name, version))
        model = versions[version] = Model(name, version, source, live)
        _say_opened("model opened", model, live)

    @property
    def ready(self) -> bool:
        return bool(self._models) and not self.closing and all(model.live is not None for model in self)

    def names(self) -> list[str]:
        return list(self._models)

    def versions(self, name: str) -> list[str]:
        return sorted(self._models[name], key=int)

    def find(self, name: str | None, version: str | None) -> Model:
        """Without a name the first model, without a version its latest. Raises Refused."""
        if name is None:
            name = next(iter(self._models))
        versions = self._models.get(name)
        if versions is None:
            raise Refused(404, f"there is no model '{name[:200]}'", "unknown-model")
        if version is None:
            return versions[max(versions, key=int)]
        found = versions.get(version)
        if found is None:
            raise Refused(404, f"the model '{name}' has no version '{version[:200]}'", "unknown-model")
        return found

    async def outlasting(self, order: Coroutine[Any, Any, None]) -> None:
        """Wait for `order`, which is followed to its end even where whoever gave it no longer waits: an engine that is being
        opened would be lost, and its threads and memory with it."""
        task = asyncio.get_running_loop().create_task(order)
        self._ordered.add(task)
        task.add_done_callback(self._followed)
        await asyncio.shield(task)

    def _followed(self, task: asyncio.Task[None]) -> None:
        self._ordered.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            say("order not followed", logging.ERROR, reason=str(error))

    async def load(self, model: Model, instead_of: Live | None = None) -> None:
        """Open the engine at the model's path again and put it in place; no call is lost.

        Where it cannot be opened, the one that serves goes on. With `instead_of` nothing is done once that one serves no more:
        an order has come in between. Raises ToolkitError.
        """
        async with self._order:
            old = model.live
            if instead_of is not None and old is not instead_of:
                return
            gauges = self.metrics.gauges(model.name, model.version)
            batching = None if old is None else old.batching
            try:
                engine = await asyncio.to_thread(Engine.open, model.path)
                live = await asyncio.to_thread(open_live, engine, self.settings, gauges, batching)
            except ToolkitError as error:
                model.reason = str(error)
                raise
            if self.closing:  # nobody would close it
                live.close()
                return
            model.reason = ""
            self._put(model, live)
        _say_opened("model replaced" if old else "model loaded", model, live, replaced=None if old is None else old.seal)

    async def unload(self, model: Model) -> None:
        """Requests are refused from now on; those under way are answered."""
        async with self._order:
            self._put(model, None)
        say("model unloaded", model=model.name, version=model.version)

    def _put(self, model: Model, live: Live | None) -> None:
        old = model.exchange(live)
        if old is None:
            return
        if live is not None:
            live.gauges.swapped()
        task = asyncio.get_running_loop().create_task(old.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def refresh(self) -> None:
        """Load each engine that is another now than the one that serves. What fails is told and tried again next time."""
        for model in list(self):
            live = model.live
            if live is None:
                continue
            try:
                manifest = await asyncio.to_thread(read_manifest, model.path)
                if manifest.seal != live.manifest.seal:
                    await self.load(model, live)
            except Exception as error:  # whatever it is: the next look may find a whole engine
                if str(error) != model.reason or not model.told:
                    model.reason, model.told = str(error), True
                    trace = None if isinstance(error, ToolkitError) else error
                    why = {"model": model.name, "version": model.version, "reason": str(error)}
                    say("engine not replaced", logging.ERROR, error=trace, **why)
            else:
                model.told = False

    async def watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self.refresh()

    async def drain(self) -> None:
        """Answer everything that was taken, then close every engine."""
        self.closing = True
        lives = [model.exchange(None) for model in self]
        await asyncio.gather(*(live.retire() for live in lives if live is not None), *self._retiring)

    def close(self) -> None:
        for model in self:
            live = model.exchange(None)
            if live is not None:
                live.close()


def _say_opened(event: str, model: Model, live: Live, **more: Any) -> None:
    manifest, batching = live.manifest, live.batching
    say(
        event,
        model=model.name,
        version=model.version,
        engine=manifest.name,
        seal=live.seal,
        target=manifest.target,
        precision=manifest.precision,
        threads=live.runner.manifest.settings.get("threads"),
        max_batch=full(batching),
        max_wait_ms=round(batching.max_wait * 1e3, 3),
        calls_at_once=batching.instances,
        queue=live.queue,
        batching="; ".join(batching.how),
        **more,
    )
