"""Serving: engines over HTTP, by the Open Inference protocol (KServe v2) and a plain POST of a picture.

    from toolkit.serve import app

    application = app("engines/built/x", "mobile=engines/built/y")   # ASGI: for gunicorn, hypercorn or uvicorn itself

`toolkit serve` runs the same application on uvicorn. It opens its engines when the server starts it up, so that a server which
forks its workers from one that has loaded the application (`--preload`) gives each worker engines of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.serve.app import App

__all__ = ["app"]


def app(*engines: str | Path, **options: Any) -> App:
    """The ASGI application that serves these engines, each `[NAME[@VERSION]=]PATH`; `options` are those of `serve.limits.Limits`.

    Raises EngineError for a name or a version that cannot be, MissingExtra without the extra `serve`.
    """
    from toolkit.serve.app import App
    from toolkit.serve.limits import Limits, Settings, sources

    return App(Settings(sources=sources(map(str, engines)), limits=Limits(**options)))
