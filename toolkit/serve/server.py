"""Server: the application on uvicorn, in this process or in several workers that share a socket."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from importlib.util import find_spec
from typing import Any

from toolkit.errors import MissingExtra, ToolkitError
from toolkit.serve.limits import Settings
from toolkit.serve.log import say, set_up

UNACKNOWLEDGED = 60_000  # milliseconds: a client that takes nothing of its answer for so long is cut off


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


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way. Raises ToolkitError: what keeps it from starting."""
    _needs()
    set_up()
    bound = listen(host, port)
    with contextlib.closing(bound):
        if settings.workers > 1:
            from toolkit.serve.workers import Supervisor

            Supervisor(settings, bound).run()
        else:
            run(settings, bound, lambda: say("serving", url=url(bound), workers=1))


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

    server = Server(uvicorn.Config(app, **uvicorn_settings(settings.limits)))
    server.run(sockets=[bound])
    say("drained", requests=server.server_state.total_requests)


def _needs() -> None:
    """Raises MissingExtra."""
    for package in ("uvicorn", "click", "h11", "httptools", "prometheus_client", "python_multipart"):
        if find_spec(package) is None:  # not imported yet: workers first settle where their counts are kept
            raise MissingExtra(package, "serve")


