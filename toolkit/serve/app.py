"""App: the ASGI application. It finds what a request asks for, answers within limits, counts, and logs what went wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from toolkit.errors import BusyError, ClosedError, DataError, InputError, ToolkitError
from toolkit.serve.exchange import Budget, Exchange, Gone, Receive, Scope, Send, respond
from toolkit.serve.limits import Settings
from toolkit.serve.live import Model
from toolkit.serve.log import say
from toolkit.serve.metrics import Metrics
from toolkit.serve.models import Models
from toolkit.serve.refused import Answer, Refused, busy
from toolkit.serve.routes import Routes

TIMED = ("infer", "classify")  # the routes that an engine answers
Handler = Callable[[Exchange], Awaitable[Answer]]


class App:
    """It may be made before a server forks its workers: engines are opened, and threads started, when it is started up."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._budget = Budget(settings.limits.bodies)
        self._models: Models | None = None
        self._routes: Routes | None = None
        self._counts: dict[tuple[str, str, str, int], Any] = {}
        self._times: dict[tuple[str, str, str], Any] = {}

    def open(self) -> Models:
        """Open the engines, unless they are. Raises ToolkitError."""
        if self._models is None:
            self._metrics = Metrics()
            models = Models(self.settings, self._metrics)
            models.open()
            self._models, self._routes = models, Routes(models, self._metrics, self.settings)
        return self._models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:  # a web socket, which nothing here speaks
            await send({"type": "websocket.close"})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            if message["type"] == "lifespan.startup":
                try:
                    await asyncio.to_thread(self.open)
                except ToolkitError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
        if self._models is not None:
            await self._models.drain()
        if self._routes is not None:
            self._routes.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin = time.perf_counter()
        assert self._routes is not None, "the server has not started this application up"
        exchange = Exchange(scope, receive, self.settings.limits, self._budget)
        route, model, handler = "", None, None
        self._metrics.inflight.inc()
        try:
            route, model, handler = self._routes.find(exchange)
            answer = await self._within(exchange, handler)
        except Refused as refused:
            answer = self._refuse(exchange, model, refused)
        except Gone:
            self._error(model, "gone")
            return
        except Exception as error:
            answer = self._refuse(exchange, model, _refusal(error), error)
        finally:
            exchange.release()
            self._metrics.inflight.dec()
        took = time.perf_counter() - begin
        self._count(route, model, answer.status, took)
        if self.settings.access_log:
            say("request", method=exchange.method, path=exchange.path, status=answer.status, ms=round(took * 1e3, 3))
        waits = exchange.headers.get(b"expect", b"").lower() == b"100-continue"  # for leave to send, which it will not get
        linger = receive if exchange.unread and not waits else None
        await respond(send, answer, linger, close=exchange.unread)  # what was not read would be taken for the next request

    async def _within(self, exchange: Exchange, handler: Handler) -> Answer:
        seconds = self.settings.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                return await handler(exchange)
        except TimeoutError:
            if exchange.reading:
                raise Refused(408, f"the request did not arrive within {seconds:g} s", "slow") from None
            raise Refused(504, f"the request was not answered within {seconds:g} s", "late") from None

    def _refuse(self, exchange: Exchange, model: Model | None, refused: Refused, cause: Exception | None = None) -> Answer:
        self._error(model, refused.reason)
        if refused.status >= 500 and refused.reason != "busy":
            where = {"path": exchange.path, "status": refused.status, "reason": str(refused)}
            unknown = cause if cause is not None and not isinstance(cause, ToolkitError) else None
            what = {} if cause is None else {"cause": f"{type(cause).__name__}: {cause}"}
            say("request failed", logging.ERROR, error=unknown, **where, **what)
        return refused.answer

    def _error(self, model: Model | None, reason: str) -> None:
        name, version = ("", "") if model is None else (model.name, model.version)
        self._metrics.errors.labels(name, version, reason).inc()

    def _count(self, route: str, model: Model | None, status: int, took: float) -> None:
        name, version = ("", "") if model is None else (model.name, model.version)
        key = (name, version, route, status)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = self._metrics.requests.labels(name, version, route, str(status))
            if status == 200 and route in TIMED:
                self._times[key[:3]] = self._metrics.latency.labels(name, version, route)
        count.inc()
        if status == 200 and route in TIMED:
            self._times[key[:3]].observe(took)


def _refusal(error: Exception) -> Refused:
    """What an engine or a room of the toolkit raised, as the client is to see it; nothing of this machine goes out."""
    if isinstance(error, BusyError):
        return busy(str(error))
    if isinstance(error, (InputError, DataError)):
        return Refused(400, str(error), "input")
    if isinstance(error, ClosedError):
        return Refused(503, "the server is closing", "closing", close=True)
    return Refused(500, "the engine failed on this request; the server's log says why", "engine")

