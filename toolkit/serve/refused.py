"""Refused: why a request gets no answer, as a status of HTTP and one line."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

JSON = b"application/json"
RETRY = (b"retry-after", b"1")


class Answer(NamedTuple):
    """What goes back: a status, a body and its type, and further headers."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """`reason` is a short word for the metrics: their labels must be few. With `close` the connection is not used again."""

    def __init__(
        self, status: int, what: str, reason: str, *, headers: tuple[tuple[bytes, bytes], ...] = (), close: bool = False
    ) -> None:
        super().__init__(what)
        self.status, self.reason = status, reason
        self.headers = (*headers, (b"connection", b"close")) if close else headers

    @property
    def answer(self) -> Answer:
        return Answer(error_body(str(self)), self.status, JSON, self.headers)


def error_body(what: str) -> bytes:
    """The protocol's error object; a whole file that somebody quoted is cut."""
    return msgspec.json.encode({"error": what if len(what) <= 1000 else f"{what[:1000]} [...]"})


def busy(what: str) -> Refused:
    """The server has no room now; it will have some soon."""
    return Refused(503, what, "busy", headers=(RETRY,))
