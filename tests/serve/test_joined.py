"""A response's head and body, which uvicorn writes one by one, leave together."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from toolkit.serve.connection import Joined


class Counted:
    """A real transport, and what was written to it."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self.transport, self.written = transport, []

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))
        self.transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


def sent(use: Any) -> tuple[list[bytes], bytes]:
    """The writes that reached the transport, and what the other end read until the end."""

    async def go() -> tuple[list[bytes], bytes]:
        here, there = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=here)
        far, far_writer = await asyncio.open_connection(sock=there)
        counted = Counted(writer.transport)
        joined = Joined(counted, asyncio.get_running_loop())  # type: ignore[arg-type]
        await use(joined)
        arrived = await far.read()
        far_writer.close()
        writer.close()
        return counted.written, arrived

    return asyncio.run(go())


def test_what_one_turn_writes_is_sent_once() -> None:
    async def use(joined: Joined) -> None:
        for _ in range(2):
            joined.write(b"head\r\n\r\n")
            joined.write(b"body")
            await asyncio.sleep(0)
        joined.close()

    assert sent(use) == ([b"head\r\n\r\nbody"] * 2, b"head\r\n\r\nbody" * 2)


def test_what_was_written_before_the_end_is_sent() -> None:
    async def end(joined: Joined) -> None:
        joined.write(b"answer")
        joined.write_eof()
        await asyncio.sleep(0)

    async def close(joined: Joined) -> None:
        joined.write(b"answer")
        joined.close()
        await asyncio.sleep(0)

    assert sent(end) == sent(close) == ([b"answer"], b"answer")
