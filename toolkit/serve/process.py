"""Process: the application on uvicorn, in one process, on a socket that is bound already."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec

from toolkit.errors import ToolkitError
from toolkit.serve.limits import Limits, Settings
from toolkit.serve.log import say

UNACKNOWLEDGED = 60_000  # milliseconds: a client that takes nothing of its answer for so long is cut off
OTHER_FILES = 64  # that a process has open beside its connections


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 is any free one. Raises ToolkitError."""
    bound: socket.socket | None = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # each connection has what the socket has that it came from
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        if bound is not None:
            bound.close()
        remedy = "Name another with --port, or end the program that has it"
        raise ToolkitError(f"the server cannot listen at {host}:{port}: {error}", remedy=remedy) from error
    bound.set_inheritable(True)
    return bound


def url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def with_files(limits: Limits) -> Limits:
    """Let this process open as many files as its connections need; where the system allows fewer there are fewer connections, as
    what is beyond would be cut off without an answer."""
    import resource

    files = resource.RLIMIT_NOFILE
    soft, hard = resource.getrlimit(files)
    need = limits.connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= need:
        return limits
    most = need if hard == resource.RLIM_INFINITY else min(need, hard)
    try:
        resource.setrlimit(files, (most, hard))
    except (OSError, ValueError):  # a system that allows less than it says
        most = soft
    if most >= need:
        return limits
    fewer = max(1, most - OTHER_FILES)
    say("few files", logging.WARNING, files=most, connections=fewer, remedy=f"Raise the limit on open files to {need}")
    return msgspec.structs.replace(limits, connections=fewer)


def run(settings: Settings, bound: socket.socket, started: Callable[[], None]) -> None:
    """One process's share: open the engines, tell that it has `started`, and serve. Raises ToolkitError."""
    import uvicorn

    from toolkit.serve.app import App
    from toolkit.serve.connection import uvicorn_settings

    app = App(settings)
    models = app.open()

    class Server(uvicorn.Server):
        """uvicorn's, which also hears SIGHUP, and ends with exit code 0 once it has drained."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: keep(models.refresh()))
            if settings.watch is not None:
                keep(models.watch(settings.watch))
            started()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)
            yield

    kept: set[asyncio.Task[None]] = set()

    def keep(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        kept.add(task)
        task.add_done_callback(kept.discard)

    server = Server(uvicorn.Config(app, **uvicorn_settings(with_files(settings.limits))))
    server.run(sockets=[bound])
    say("drained", requests=server.server_state.total_requests)
