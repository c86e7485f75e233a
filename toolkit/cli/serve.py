"""`toolkit serve`: engines over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import app

MIB = 1 << 20


Engines = Annotated[list[str], typer.Argument(metavar="[NAME[@VERSION]=]ENGINE...", help="folders or packed files")]
Host = Annotated[str, typer.Option(help="the address to listen at; 0.0.0.0 or :: for all of this machine's")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="the port; 0: any free one")]
Threads = Annotated[int | None, typer.Option(min=1, help="of an engine on the CPU; default: its share of the cores")]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="most images in a batch; default: measured at the start")]
MaxWait = Annotated[float | None, typer.Option(min=0, help="longest wait for others in a batch; default: measured at the start")]
Bench = Annotated[Path | None, typer.Option(help="a bench of these engines, to take batch and wait from")]
Queue = Annotated[int | None, typer.Option(min=1, help="most images that may wait; default: what is answered in a second")]
Drain = Annotated[float, typer.Option(min=0.1, help="seconds that requests in progress get at SIGTERM")]
Watch = Annotated[float | None, typer.Option(min=0.1, help="seconds between checks for replaced engines; default: none")]
Admin = Annotated[bool, typer.Option("--admin", help="accept requests to load and unload, from this machine only")]


@app.command()
def serve(
    engines: Engines,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="processes; each opens every engine")] = 1,
    threads: Threads = None,
    max_batch: MaxBatch = None,
    max_wait_ms: MaxWait = None,
    results: Bench = None,
    bound_ms: Annotated[float, typer.Option(min=0.1, help="largest latency of a batch: limits its size")] = 50.0,
    queue: Queue = None,
    body_mib: Annotated[int, typer.Option(min=1, help="largest body of a request")] = 64,
    pixels: Annotated[int, typer.Option(min=1, help="most pixels of one picture")] = 50_000_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="time limit of a request, from its head to its answer")] = 30.0,
    drain: Drain = 30.0,
    watch: Watch = None,
    admin: Admin = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="log every request")] = False,
) -> None:
    """Answer over HTTP: the Open Inference protocol (KServe v2), POST /classify, a page, metrics."""
    from toolkit.serve.limits import Limits, Settings, sources
    from toolkit.serve.server import serve as run

    body, bodies = body_mib * MIB, max(512, 4 * body_mib) * MIB
    limits = Limits(body=body, bodies=bodies, pixels=pixels, queue=queue, seconds=seconds, drain=drain)
    settings = Settings(
        sources=sources(engines),
        limits=limits,
        threads=threads,
        max_batch=max_batch,
        max_wait=None if max_wait_ms is None else max_wait_ms / 1000,
        bound=bound_ms / 1000,
        results=results,
        workers=workers,
        admin=admin,
        watch=watch,
        access_log=access_log,
    )
    run(settings, host, port)
