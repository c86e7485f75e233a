"""Exchange: one request as ASGI brings it, its body read within limits, and the answer sent back."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from toolkit.serve.limits import Limits
from toolkit.serve.refused import Answer, Refused, busy

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
CLOSE = (b"connection", b"close")
LINGER = 1.0  # seconds
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gone(Exception):
    """The client went away in the middle of its request."""


class Budget:
    """Bytes that all requests in progress may hold together."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    def take(self, count: int) -> None:
        """Raises Refused."""
        if self.held + count > self.most:
            raise busy("the server holds as many bytes of requests as it may")
        self.held += count

    def give(self, count: int) -> None:
        self.held -= count


class Exchange:
    """`reading` tells whether the client is being waited for, so that a time limit can say whose fault it was; `unread` whether a
    part of the body was left, and the connection has no further use."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits, budget: Budget) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.client: str = (scope.get("client") or ("",))[0]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.reading = False
        self.unread = (self._length() or 0) > 0 or b"transfer-encoding" in self.headers
        self._receive, self._limits, self._budget, self._held = receive, limits, budget, 0

    async def body(self) -> bytes:
        """The whole body, decompressed. Raises Refused as soon as it is known to be too large, Gone."""
        most = self._limits.body
        length = self._length()
        if length is not None and length > most:
            raise _too_large(most)
        self.reading = True
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size > most:
                raise _too_large(most)
            self._take(len(part))
            parts.append(part)
        self.reading = self.unread = False
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        coding = self.headers.get(b"content-encoding", b"identity").lower()
        return whole if coding == b"identity" else self._decompressed(whole, coding)

    def _length(self) -> int | None:
        text = self.headers.get(b"content-length")
        return int(text) if text is not None and text.isdigit() else None

    def _take(self, count: int) -> None:
        self._budget.take(count)
        self._held += count

    def _decompressed(self, data: bytes, coding: bytes) -> bytes:
        """gzip or deflate, never more than a body may have: some bytes can stand for a thousand times as many."""
        if coding not in (b"gzip", b"deflate"):
            raise Refused(415, "the body's Content-Encoding is not gzip, deflate or identity", "encoding")
        stream = zlib.decompressobj(31 if coding == b"gzip" else 15)
        try:
            whole = stream.decompress(data, self._limits.body + 1)
        except zlib.error as error:
            raise Refused(400, f"the body is not the {coding.decode()} that its head says: {error}", "encoding") from None
        if len(whole) > self._limits.body:
            raise _too_large(self._limits.body)
        if not stream.eof or stream.unused_data:
            raise Refused(400, f"the body's {coding.decode()} is cut short, or more follows it", "encoding")
        self._take(len(whole))
        return whole

    def release(self) -> None:
        """The body is no longer held."""
        self._budget.give(self._held)
        self._held = 0


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body is larger than the {most:,} bytes that this server takes", "body")


async def respond(send: Send, answer: Answer, linger: Receive | None = None, *, close: bool = False) -> None:
    """With `linger` the client may still be sending: what it sends is thrown away for a moment, and only then the connection is
    closed. Closed at once, it would be reset under the client's hands before the answer had been read."""
    headers = [(b"content-type", answer.kind), (b"content-length", b"%d" % len(answer.body)), *answer.headers]
    if (linger is not None or close) and CLOSE not in headers:
        headers.append(CLOSE)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if linger is None:
        await send({"type": "http.response.body", "body": answer.body})
        return
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while (message := await linger())["type"] != "http.disconnect" and message.get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b""})
