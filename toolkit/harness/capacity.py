"""Capacity: what so many images take, from rates that were measured, with their intervals carried through.

time = images / rate. A worker is what was measured: the cores, or the GPU, that the engine kept busy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from toolkit.errors import MeasurementError
from toolkit.harness.intervals import throughput
from toolkit.harness.measurement import Measurement
from toolkit.harness.results import CardSettings, Results
from toolkit.harness.server import holds
from toolkit.types import ON_CPU, Frozen

DAY = 24.0
AGAIN = "Measure it: toolkit bench ENGINE --scenario offline -o results.json"
BASES = ("offline", "server", "single-stream", "end-to-end")


class Span(Frozen, frozen=True):
    """A value with its 95 % interval; None: open on that side."""

    value: float
    low: float | None
    high: float | None

    def over(self, amount: float) -> Span:
        """amount / self."""
        low = None if self.high is None else amount / self.high
        return Span(value=amount / self.value, low=low, high=amount / self.low if self.low else None)

    def times(self, factor: float) -> Span:
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Span(value=self.value * factor, low=low, high=high)


class Need(Frozen, frozen=True):
    """What one engine takes on one basis. Rates are images a second of `unit` as measured, before the utilization.

    `workers` are needed at once so that all is done within the period, each busy for the utilization's share of it; `unit_hours`
    are the core-hours or GPU-hours of work alone. `kwh` and `cost` are None where nothing tells them.
    """

    engine: str
    basis: str
    rate: Span
    unit: str  # "2 cores" or "1 GPU"
    units: int
    workers: Span
    unit_hours: Span
    kwh: Span | None
    cost: Span | None
    energy_from: str
    notes: tuple[str, ...] = ()


class Capacity(Frozen, frozen=True):
    """`images` in every `hours`, on workers that are busy `utilization` of the time."""

    images: float
    hours: float
    utilization: float
    device: str
    needs: tuple[Need, ...]
    notes: tuple[str, ...]


def capacity(
    results: Results,
    images: float,
    *,
    hours: float = DAY,
    utilization: float = 1.0,
    watts: float | None = None,
    price: float | None = None,
) -> Capacity:
    """`watts` are of one worker, `price` of one for an hour; absent, energy is told where NVML counted it.

    Raises MeasurementError: no rate in `results`, or numbers that cannot be.
    """
    if not (images > 0 and hours > 0 and 0 < utilization <= 1 and math.isfinite(images * hours)):
        what = f"{images:g} images in {hours:g} hours at a utilization of {utilization:g} are not possible"
        raise MeasurementError(what, remedy="Use --images and --hours above 0, and --utilization above 0 and at most 1")
    if not all(0 <= given < math.inf for given in (watts or 0.0, price or 0.0)):
        raise MeasurementError("watts and a price are 0 or more, and finite")
    needs = [
        _need(results, name, basis, m, images, hours, utilization, watts, price)
        for name in results.manifests
        for basis, m in _bases(results.of(name))
    ]
    if not needs:
        raise MeasurementError("the results have no rate of an engine", remedy=AGAIN)
    notes = [
        "assumes that each further worker is as fast as the measured one: no network, storage or queue between them is counted"
    ]
    if not any(need.basis.startswith("end-to-end") for need in needs):
        notes.append("tensors in, answers out: reading, decoding and resizing pictures are not in these rates")
    device = results.environment.device
    return Capacity(images=images, hours=hours, utilization=utilization, device=device, needs=tuple(needs), notes=tuple(notes))


def _bases(found: Sequence[Measurement]) -> list[tuple[str, Measurement]]:
    """The fastest trial of each kind; of the server's those that kept their bound."""
    best: dict[str, Measurement] = {}
    for m in found:
        basis = "end-to-end" if m.clock == "end-to-end" else m.scenario
        counts = m.failure is None and m.throughput and len(m.seconds) and (m.scenario != "server" or holds(m))
        if counts and (basis not in best or _rate(m) > _rate(best[basis])):
            best[basis] = m
    return [(basis, best[basis]) for basis in BASES if basis in best]


def _rate(m: Measurement) -> float:
    return (m.offered if m.scenario == "server" else m.throughput) or 0.0


def _need(
    results: Results, name: str, basis: str, m: Measurement, images: float, hours: float, utilization: float,
    watts: float | None, price: float | None,
) -> Need:  # fmt: skip
    rate = _failing(results.of(name), m) if basis == "server" else rate_of(m)
    units, kind = _units(results, name, m)
    busy = rate.over(images / 3600)  # hours of one worker at work
    paid = busy.times(1 / utilization)
    kwh, source = _energy(m, images, paid, watts)
    notes = [f"flagged: {', '.join(sorted({flag.trouble for flag in m.flags}))}"] if m.flags else []
    return Need(
        engine=name,
        basis=f"server, p99 under {(m.bound_ns or 0) / 1e6:g} ms" if basis == "server" else f"{basis}, batch {m.batch}",
        rate=rate,
        unit=f"{units} {kind}{'s' if units > 1 else ''}",
        units=units,
        workers=paid.times(1 / hours),
        unit_hours=busy.times(units),
        kwh=kwh,
        cost=None if price is None else paid.times(price),
        energy_from=source,
        notes=tuple(notes),
    )


def _units(results: Results, name: str, m: Measurement) -> tuple[int, str]:
    """How many cores the engine kept busy, or one GPU."""
    if m.target not in ON_CPU:
        return 1, "GPU"
    settings = msgspec.convert(results.manifests[name].get("settings") or {}, CardSettings)
    usable = len(results.environment.affinity) or results.environment.cores
    return max(1, min(settings.threads * m.streams, usable)), "core"


def _energy(m: Measurement, images: float, paid: Span, watts: float | None) -> tuple[Span | None, str]:
    if watts is not None:
        return paid.times(watts / 1000), f"{watts:g} W a worker, as given"
    if m.images_per_joule:
        joules = images / m.images_per_joule / 3.6e6
        return Span(value=joules, low=None, high=None), "counted by NVML while busy; the GPU alone"
    return None, ""


def rate_of(m: Measurement) -> Span:
    """Images a second, with the 95 % interval that every report shows; open where the samples do not tell it."""
    found = throughput(m)
    assert found is not None, "only measurements with a rate are taken"
    return Span(value=found.value, low=found.low or None, high=found.high if math.isfinite(found.high) else None)


def _failing(found: Sequence[Measurement], kept: Measurement) -> Span:
    """Of the server: the highest rate that kept the bound, and the lowest above it that did not."""
    rate = kept.offered or 0.0
    failed = [m.offered for m in found if m.scenario == "server" and not m.failure and not holds(m) and (m.offered or 0) > rate]
    return Span(value=rate, low=rate, high=min((one for one in failed if one), default=None))
