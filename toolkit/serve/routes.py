"""Routes: which path is what. A path's words are compared and looked up; none of them ever names a file."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import msgspec

from toolkit.errors import DataError, ToolkitError
from toolkit.images.bounds import pixels_of
from toolkit.images.picture import preprocess
from toolkit.manifest import Manifest
from toolkit.serve import describe
from toolkit.serve.decoders import Decoders
from toolkit.serve.exchange import Exchange
from toolkit.serve.limits import Settings
from toolkit.serve.live import Live, Model
from toolkit.serve.metrics import CONTENT_TYPE, Metrics
from toolkit.serve.models import Models
from toolkit.serve.page import PAGE
from toolkit.serve.picture import picture_in
from toolkit.serve.protocol import HEADER_LENGTH, encode, json_answer, parse
from toolkit.serve.refused import Answer, Refused
from toolkit.types import Array, Float

Handler = Callable[[Exchange], Awaitable[Answer]]
Found = tuple[str, Model | None, Handler]
MOST_TOP, MOST_FIELDS = 1000, 16
RELAYED = {b"origin", b"sec-fetch-site", b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"}  # what browsers and proxies add


class Routes:
    """`find` gives a route's name for the metrics, its model if it has one, and the function that answers."""

    def __init__(self, models: Models, metrics: Metrics, settings: Settings) -> None:
        self.models, self.metrics, self.settings = models, metrics, settings
        self._decoders = Decoders(settings.limits.patience)
        self._fixed: dict[str, tuple[str, str, Handler]] = {
            "/": ("GET", "page", _always(PAGE)),
            "/metrics": ("GET", "metrics", self._metrics),
            "/status": ("GET", "status", self._status),
            "/v2": ("GET", "server", _always(json_answer(describe.server()))),
            "/v2/health/live": ("GET", "live", _always(json_answer({"live": True}))),
            "/v2/health/ready": ("GET", "ready", self._ready),
            "/v2/models": ("GET", "models", self._names),
            "/v2/models/stats": ("GET", "stats", self._all_statistics),
            "/v2/repository/index": ("POST", "index", self._index),
        }

    def close(self) -> None:
        self._decoders.close()

    def find(self, exchange: Exchange) -> Found:
        """Raises Refused: 404, or 405 with what the path takes."""
        path = exchange.path.rstrip("/") or "/"
        parts = path.split("/")
        if path.startswith("/v2/models/") and path not in self._fixed:
            return self._of_model(exchange, parts[3:])
        if path == "/classify":
            return self._classify_route(exchange, None, None)
        if path.startswith("/v2/repository/models/") and len(parts) == 6:
            return self._of_repository(exchange, parts[4], parts[5])
        method, name, handler = self._fixed.get(path, ("", "", None))
        if handler is None:
            raise Refused(404, "there is nothing at this path", "unknown-path")
        _check_method(exchange, method)
        return name, None, handler

    def _of_model(self, exchange: Exchange, parts: list[str]) -> Found:
        name, version, rest = parts[0], None, parts[1:]
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        what = rest[0] if len(rest) == 1 else "" if not rest else "/"
        if what == "classify":
            return self._classify_route(exchange, name, version)
        answers: dict[str, tuple[str, Callable[[Model], Any]]] = {
            "": ("GET", self._metadata),
            "ready": ("GET", _model_ready),
            "config": ("GET", lambda model: json_answer(describe.config(model))),
            "stats": ("GET", partial(self._statistics, version is None)),
        }
        if what == "infer":
            _check_method(exchange, "POST")
            model = self.models.find(name, version)
            return "infer", model, partial(self._infer, model)
        if what not in answers:
            raise Refused(404, "there is nothing at this path", "unknown-path")
        method, answer = answers[what]
        _check_method(exchange, method)
        model = self.models.find(name, version)
        return what or "metadata", model, _always_by(partial(answer, model))

    # inference

    async def _infer(self, model: Model, exchange: Exchange) -> Answer:
        model.ready()
        body = await exchange.body()
        with model.ready().used() as live:
            wanted = parse(body, exchange.headers.get(HEADER_LENGTH), live.manifest, self.settings.limits.json)
            logits = await _within(wanted.seconds, live.ask(wanted.images))
            answer = encode(wanted, logits, live.manifest, model.name, model.version)
            return _signed(answer, live)

    def _classify_route(self, exchange: Exchange, name: str | None, version: str | None) -> Found:
        _check_method(exchange, "POST")
        query = _query(exchange.query)
        name = name if name is not None else _one(query, "model")
        version = version if version is not None else _one(query, "version")
        top = _one(query, "top") or "5"
        if not top.isascii() or not top.isdigit() or len(top) > 4 or not 1 <= int(top) <= MOST_TOP:
            raise Refused(400, f"`top` is a number from 1 to {MOST_TOP}", "parameters")
        model = self.models.find(name, version)
        return "classify", model, partial(self._classify, model, int(top))

    async def _classify(self, model: Model, top: int, exchange: Exchange) -> Answer:
        model.ready()
        body = await exchange.body()
        picture = picture_in(body, exchange.headers.get(b"content-type", b""))
        with model.ready().used() as live:
            image = await self._decoders.run(partial(decode, picture, live.manifest, self.settings.limits.pixels))
            logits = await live.ask(image[None])
            try:
                best = live.runner.predictions(logits, top)[0]
            except DataError as error:  # the answer is at fault, and not the picture
                raise Refused(500, "the engine answers this picture with NaN or infinity", "not-finite") from error
            found = {"model_name": model.name, "model_version": model.version, "predictions": [p._asdict() for p in best]}
            return _signed(json_answer(found), live)

    # what is told

    def _metadata(self, model: Model) -> Answer:
        return json_answer(describe.metadata(model, self.models.versions(model.name)))

    def _statistics(self, every: bool, model: Model) -> Answer:
        same = [other for other in self.models if other.name == model.name] if every else [model]
        return json_answer(describe.statistics(self.metrics, same))

    async def _all_statistics(self, exchange: Exchange) -> Answer:
        return json_answer(describe.statistics(self.metrics, list(self.models)))

    async def _names(self, exchange: Exchange) -> Answer:
        return json_answer({"models": self.models.names()})

    async def _ready(self, exchange: Exchange) -> Answer:
        ready = self.models.ready
        return json_answer({"ready": ready}, 200 if ready else 503)

    async def _metrics(self, exchange: Exchange) -> Answer:
        return Answer(self.metrics.text(), kind=CONTENT_TYPE)

    async def _status(self, exchange: Exchange) -> Answer:
        return json_answer(describe.state(self.metrics, self.models))

    async def _index(self, exchange: Exchange) -> Answer:
        return json_answer(describe.index(self.models, _json(await exchange.body()).get("ready") is True))

    # orders

    def _of_repository(self, exchange: Exchange, name: str, order: str) -> Found:
        if order not in ("load", "unload"):
            raise Refused(404, "there is nothing at this path", "unknown-path")
        _check_method(exchange, "POST")
        self._check_admin(exchange)
        latest = self.models.find(name, None)
        return order, latest, partial(self._load if order == "load" else self._unload, latest.name)

    def _check_admin(self, exchange: Exchange) -> None:
        """Orders come from this machine, and from no browser: any page that a user has open could send one there."""
        if not self.settings.admin:
            raise Refused(403, "models are not loaded by requests here: start the server with --admin", "admin")
        if not _is_loopback(exchange.client) or exchange.headers.keys() & RELAYED:
            raise Refused(403, "these requests are taken from this machine only, and not through a browser or a proxy", "admin")

    async def _load(self, name: str, exchange: Exchange) -> Answer:
        if _json(await exchange.body()).get("parameters"):
            raise Refused(400, "an engine is loaded as it was built: there is nothing to configure", "parameters")
        await self.models.outlasting(self._load_all(name))
        return json_answer({})

    async def _load_all(self, name: str) -> None:
        for version in self.models.versions(name):
            try:
                await self.models.load(self.models.find(name, version))
            except ToolkitError as error:
                raise Refused(400, f"version {version} of '{name}' was not loaded: {error}", "load") from error
        if self.settings.workers > 1:
            os.kill(os.getppid(), signal.SIGHUP)  # the supervisor has the others look at their engines' paths

    async def _unload(self, name: str, exchange: Exchange) -> Answer:
        await exchange.body()
        if self.settings.workers > 1:
            raise Refused(400, "a server of several workers does not unload models", "admin")
        for version in self.models.versions(name):
            await self.models.unload(self.models.find(name, version))
        return json_answer({})


def decode(picture: bytes, manifest: Manifest, most: int) -> Array:
    """An encoded picture as the engine takes it. Raises Refused where it has more than `most` pixels, DataError."""
    if pixels_of(picture, manifest.preprocess.resize) > most:
        raise Refused(413, f"the picture has, or would grow to, more than the {most:,} pixels that this server takes", "pixels")
    return preprocess(picture, manifest.preprocess)


async def _within(seconds: float | None, answer: Awaitable[Float]) -> Float:
    """Raises Refused where a request's own timeout ends first."""
    if seconds is None:
        return await answer
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise Refused(504, f"not answered within the request's own timeout of {seconds:g} s", "late") from None


def _json(body: bytes) -> dict[str, Any]:
    """An order's object; an empty body is an empty one."""
    try:
        found = msgspec.json.decode(body) if body.strip() else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "the body is not a JSON object", "json")
    return found


def _signed(answer: Answer, live: Live) -> Answer:
    """With the seal of the engine that gave it: after a swap a client can tell which one it was."""
    return answer._replace(headers=(*answer.headers, (b"engine-seal", live.seal.encode())))


def _model_ready(model: Model) -> Answer:
    ready = model.live is not None
    return json_answer({"name": model.name, "ready": ready}, 200 if ready else 503)


def _check_method(exchange: Exchange, method: str) -> None:
    if exchange.method != method and not (method == "GET" and exchange.method == "HEAD"):
        headers = ((b"allow", method.encode()),)
        raise Refused(405, f"this path takes {method}", "method", headers=headers)


def _query(query: bytes) -> dict[str, list[str]]:
    """Raises Refused where there are more fields than anybody needs."""
    try:
        return parse_qs(query.decode("ascii", "replace"), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refused(400, f"the query has more than {MOST_FIELDS} fields", "parameters") from None


def _one(query: dict[str, list[str]], name: str) -> str | None:
    return query[name][-1] if name in query else None


def _is_loopback(client: str) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _always(answer: Answer) -> Handler:
    async def handler(exchange: Exchange) -> Answer:
        return answer

    return handler


def _always_by(make: Callable[[], Answer]) -> Handler:
    async def handler(exchange: Exchange) -> Answer:
        return make()

    return handler
