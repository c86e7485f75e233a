"""`toolkit capacity`: what a number of images takes, from measured rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import Json, app, finish, out, plain, print_json
from toolkit.harness.capacity import DAY, Need, Span
from toolkit.report.listing import Listing


@app.command()
def capacity(
    results: Annotated[Path, typer.Argument(help="what `toolkit bench` wrote; of --scenario offline for the best rate")],
    images: Annotated[float, typer.Option(min=0, help="number of images, such as 1e9")],
    hours: Annotated[float, typer.Option(min=0, help="hours to process them in")] = DAY,
    utilization: Annotated[float, typer.Option(min=0, max=1, help="share of the time that workers are busy")] = 1.0,
    watts: Annotated[
        float | None, typer.Option(min=0, help="power of one worker; default: as NVML measured it, if it did")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="price of one worker for an hour")] = None,
    as_json: Json = False,
) -> None:
    """Workers, core-hours or GPU-hours, energy and cost of a number of images, from measured rates with their intervals."""
    from toolkit.harness.capacity import capacity as work_out
    from toolkit.harness.results import Results

    found = work_out(Results.read(results), images, hours=hours, utilization=utilization, watts=watts, price=price)
    if as_json:
        print_json(plain(found))
        return
    out.print(f"{images:,.0f} images in {hours:g} hours, workers busy {utilization:.0%} of the time", highlight=False)
    out.print(
        f"a worker is what was measured: the cores or the GPU that the engine kept busy, on {found.device}",
        highlight=False,
    )
    out.print(_table(found.needs))
    for note in (*found.notes, *(f"{one.engine}, {one.basis}: {said}" for one in found.needs for said in one.notes)):
        out.print(note, highlight=False)
    least = min(found.needs, key=lambda one: one.workers.value)
    finish(f"Fewest workers: {shown(least.workers)} of {least.unit} with {least.engine} ({least.basis}).")


def _table(needs: tuple[Need, ...]) -> Listing:
    columns = ["engine", "basis", "images/s", "a worker", "workers", "core- or GPU-hours"]
    columns += ["kWh"] if any(one.kwh for one in needs) else []
    columns += ["cost"] if any(one.cost for one in needs) else []
    body = []
    for one in needs:
        cells = [one.engine, one.basis, shown(one.rate), one.unit, shown(one.workers), shown(one.unit_hours)]
        cells += [shown(one.kwh)] if "kWh" in columns else []
        cells += [shown(one.cost)] if "cost" in columns else []
        body.append(cells)
    return Listing(columns, body, text=(0, 1, 3))


def shown(span: Span | None) -> str:
    """`95 [90, 101]`; a dash for an end that is open."""
    if span is None:
        return "-"
    low, high = ("-" if end is None else _figure(end) for end in (span.low, span.high))
    return _figure(span.value) if low == high == "-" else f"{_figure(span.value)} [{low}, {high}]"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
