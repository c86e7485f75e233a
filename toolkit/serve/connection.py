"""Connection: uvicorn's, with bounds on what it leaves open: how long and how large a head may be, and how many there are."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from toolkit.serve.exchange import LINGER
from toolkit.serve.limits import Limits
from toolkit.serve.log import say
from toolkit.serve.refused import error_body


class Joined:
    """A transport that sends together what is written in one turn of the event loop: a response's head and its body, which
    uvicorn writes one by one, are one system call and one packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self._ended = False

    def write(self, data: bytes) -> None:
        if self._ended:  # refused meanwhile: an answer that was under way comes too late
            return
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = []
            self._transport.write(data)

    def write_eof(self) -> None:
        self._flush()
        self._ended = True
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """A client that sends its head byte by byte costs a socket and a timer, and those not for long."""

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _over = False  # refused: what still comes is thrown away
    _last = False  # the server drains: the next answer is the last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]
        self._one_too_many = len(self.connections) > self.limits.connections
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._head = 0
        self._timer = self.loop.call_later(self.limits.head_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(408, f"the request's head did not arrive within {self.limits.head_seconds:g} s")

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._one_too_many:
            self._refuse(503, "the server has as many connections as it may", b"retry-after: 1\r\n")
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()  # the first bytes of a further request
        if self._timer is not None:
            self._head += len(data)
            if self._head > self.limits.head and not self._in_body(data):
                self._refuse(431, f"the request's head is larger than {self.limits.head:,} bytes")
                return
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._declined(data[offer.args[0] :])
            except httptools.HttpParserError:
                self._no_http()
                return

    def _declined(self, rest: bytes) -> bytes:
        """What stands for the request in whose place the client offered another protocol, as Java's HttpClient does each time.
        The parser takes the offer for accepted and would not read the body: a new one is given the head without the offer."""
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        if line.startswith(b"CONNECT "):
            self._no_http()
            return b""
        lines = [line, *(b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != b"upgrade")]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"".join([*lines, b"\r\n", rest])

    def _no_http(self) -> None:
        """Answered in the protocol's form, after the answers that are under way: those were whole requests."""
        if self._answering():
            self.cycle.keep_alive, self._over = False, True
        else:
            self._refuse(400, "this cannot be read as a request of HTTP/1.1")

    def _answering(self) -> bool:
        """Whether the last request has come whole, and its answer has not left."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to leave the connection open: a client may end its side once it has asked, and still wait for the answer."""
        if answering := self._answering():
            self.cycle.keep_alive, self._over = False, True
        return answering

    def _in_body(self, data: bytes) -> bool:
        """Whether the head may have ended in what has come now: then its length is not known to be too large."""
        return b"\r\n\r\n" in data and self._head - len(data) <= self.limits.head

    def on_headers_complete(self) -> None:
        self._stop_timer()
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.cycle.keep_alive = self.cycle.keep_alive and not self._last

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def shutdown(self) -> None:
        """The server drains. A request may be on its way on a connection that is idle here: it is answered, as the last."""
        if self.cycle is None or self.cycle.response_complete:
            self._last = True
            self.loop.call_later(min(LINGER, self.limits.drain / 2), self._close_if_idle)
        else:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, what: str, more: bytes = b"") -> None:
        self._stop_timer()
        body = error_body(what)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n" % (len(body), more)
        self.transport.write(STATUS_LINE[status] + head + body)
        self._over = True
        self.connections.discard(self)
        # closed at once, it would be reset under the client's hands before that had read the answer
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER, self.transport.close)
        say("connection refused", status=status, reason=what, client=(self.client or ("",))[0])


def protocol(limits: Limits) -> type[Connection]:
    """The class that uvicorn makes a connection of."""
    return type("Bounded", (Connection,), {"limits": limits})


def uvicorn_settings(limits: Limits) -> dict[str, Any]:
    return {
        "http": protocol(limits),
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,  # a client could call itself a loopback address
        "timeout_keep_alive": int(max(1, limits.idle)),
        "timeout_graceful_shutdown": int(max(1, limits.drain)),
        "backlog": 2048,
    }
