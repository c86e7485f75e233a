"""Machines: the gallery of shared results, a part for each device, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from toolkit.errors import MeasurementError
from toolkit.harness.results import Results
from toolkit.report.amounts import milliseconds, rate, span, times
from toolkit.report.chart import Series, chart
from toolkit.report.decision import decide
from toolkit.report.frame import frame, section
from toolkit.report.grid import grid
from toolkit.report.markup import Child, tag
from toolkit.report.scale import Axis
from toolkit.report.summary import EngineSummary, rows

COLUMNS = ("engine", "precision", "batch", "p50 ms", "speed", "img/s", "top-1", "agrees", "flags")


def gallery_of(folder: Path) -> list[tuple[str, Results]]:
    """Every results file of a folder, by name. Raises MeasurementError: none there, or one that cannot be read."""
    paths = sorted(path for path in folder.glob("*.json") if path.is_file())
    if not paths:
        raise MeasurementError(f"{folder} holds no results", remedy="Add some: toolkit bench ENGINE... --share FILE.json")
    return [(path.name, Results.read(path)) for path in paths]


def machines(shared: Sequence[tuple[str, Results]]) -> str:
    """One HTML page: all engines of all devices in a table and a chart, then each device with what it is and ran."""
    devices: dict[str, list[tuple[str, Results]]] = {}
    for name, results in shared:
        devices.setdefault(results.environment.device, []).append((name, results))
    parts = [section("all", "All devices", _all(devices))]
    for index, (device, files) in enumerate(sorted(devices.items()), 1):
        content: list[Child] = [part for name, results in files for part in _file(name, results)]
        parts.append(section(f"device-{index}", device, content))
    line = f"{len(shared)} file{'s' * (len(shared) != 1)} that users shared: toolkit bench ENGINE... --share FILE.json"
    return frame("Measured engines, by device", f"Measured on {len(devices)} device{'s' * (len(devices) != 1)}", line, parts)


def _all(devices: dict[str, list[tuple[str, Results]]]) -> list[Element]:
    body: list[list[Child]] = []
    series = []
    for style, (device, files) in enumerate(sorted(devices.items())):
        points = []
        for name, results in files:
            for row in rows(results):
                if row.latency is not None:
                    body.append([device, *_cells(row), name])
                    points.append((row.p50 or 0.0, row.throughput or 0.0))
        if points:
            x, y = zip(*sorted(points), strict=True)
            series.append(Series(name=device, x=x, y=y, style=style, mark="points"))
    drawing = chart(
        "Throughput against latency",
        "A point is an engine: left is a shorter wait at the smallest batch, up is more images a second at the best one.",
        series,
        Axis(label="p50, milliseconds a call, logarithmic", log=True),
        Axis(label="images a second, logarithmic", log=True),
    )
    note = "In brackets: 95 % intervals. Speed counts from the reference, or the first engine, of the same file."
    return [drawing, grid(["device", *COLUMNS, "file"], body, text=(0, 1, 2, 9, 10), note=note)]


def _file(name: str, results: Results) -> list[Element]:
    e = results.environment
    summary = rows(results)
    decision = decide(results, summary)
    versions = ", ".join(f"{k} {v}" for k, v in sorted(e.versions.items()))
    facts = [
        (
            "Processor",
            f"{e.cpu}, {len(e.affinity)} of {e.cores} cores, {e.memory_mib:,} MiB" + (", virtual" if e.virtual else ""),
        ),
        ("GPU", ", ".join(f"{g.name}, driver {g.driver}" for g in e.gpus) or e.gpu_note or "none"),
        ("System", f"{e.system}, Python {e.python}"),
        ("Energy", e.energy or "not told"),
        ("Versions", versions),
    ]
    table = grid(
        COLUMNS, [_cells(row) for row in summary if row.latency], styles=[r.style for r in summary if r.latency], text=(0, 1, 8)
    )
    return [
        tag("h3", f"{name}, measured {e.started[:10]}"),
        tag("p", decision.text, class_="decision") if decision else tag("p", "Nothing was timed.", class_="absent"),
        table,
        tag("dl", [tag("div", tag("dt", key), tag("dd", value)) for key, value in facts], class_="facts"),
    ]


def _cells(row: EngineSummary) -> list[Child]:
    assert row.latency is not None
    flags = ", ".join(sorted({flag.trouble for flag in row.latency.flags})) or "-"
    return [
        row.name,
        row.precision,
        str(row.latency.batch),
        f"{milliseconds(row.p50)} {span(row.spans.get('p50'), milliseconds)}",
        times(row.speedup) or "-",
        f"{rate(row.throughput)} {span(row.spans.get('throughput'), rate)}",
        "-" if row.top1 is None else f"{row.top1:.2%}",
        "-" if row.verdict is None else f"{row.verdict.agreement:.2%}",
        flags,
    ]
