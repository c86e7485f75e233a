"""Server: what `toolkit serve` starts, one process or several workers that share a socket."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec

from toolkit.errors import MissingExtra
from toolkit.serve.limits import Settings
from toolkit.serve.log import say, set_up
from toolkit.serve.process import listen, run, url
from toolkit.serve.workers import Supervisor


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way. Raises ToolkitError: what keeps it from starting."""
    _needs()
    set_up()
    bound = listen(host, port)
    with contextlib.closing(bound):
        if settings.workers > 1:
            Supervisor(settings, bound).run()
        else:
            run(settings, bound, lambda: say("serving", url=url(bound), workers=1))


def _needs() -> None:
    """Raises MissingExtra."""
    for package in ("uvicorn", "click", "h11", "httptools", "prometheus_client", "python_multipart"):
        if find_spec(package) is None:  # not imported yet: workers first settle where their counts are kept
            raise MissingExtra(package, "serve")
