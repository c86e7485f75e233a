"""How many runners a job has, and what Ray books for each.

Ray lists the files of a source in a task that wants a whole core, while the actors of a fixed pool take theirs first: with every
core taken the job would wait for itself without end. So one core is left to it.
"""

from __future__ import annotations

from typing import NamedTuple

from toolkit.engine.engine import Engine
from toolkit.errors import BackendError
from toolkit.types import ON_CPU

CPU, GPU = "num_cpus", "num_gpus"
NAMES = {CPU: "CPU", GPU: "GPU"}  # of an actor's options, in a cluster's resources


class Pool(NamedTuple):
    """`first` actors at once, up to `size` as the work wants them; `needs` are Ray's options of each."""

    first: int
    size: int
    needs: dict[str, float]

    @classmethod
    def of(
        cls, engine: Engine, cluster: dict[str, float], actors: int | None, cpus: float | None, gpus: float | None, reading: bool
    ) -> Pool:
        """Raises BackendError where the cluster has no room for one, or for what was asked."""
        needs = resources(engine, cpus, gpus)
        spare = 1.0 if reading else 0.0
        cores = cluster.get("CPU", 0.0)
        if actors is not None:
            if actors < 1:
                raise BackendError(f"{actors} actors cannot work", remedy="Use actors=1 or more")
            taken = actors * needs.get(CPU, 0.0)
            if reading and taken > cores - spare:
                what = f"{actors} actors of {needs[CPU]:g} core(s) take {taken:g} of {cores:g}, and Ray needs one to read with"
                raise BackendError(what, remedy="Give fewer actors=..., or less to each: cpus=...")
            return cls(actors, actors, needs)
        size = room(cluster, needs)
        if needs.get(CPU, 0.0) > cores - spare:  # one runner that would take all: it shares a core with the listing
            needs = {**needs, CPU: cores - spare}
        first = size if not reading else max(1, min(size, room({**cluster, "CPU": cores - spare}, needs)))
        return cls(first, size, needs)


def resources(engine: Engine, cpus: float | None, gpus: float | None) -> dict[str, float]:
    """What Ray must give each actor."""
    if gpus is None:
        gpus = 0.0 if engine.manifest.target in ON_CPU else 1.0
    if gpus:
        return {GPU: gpus} if cpus is None else {GPU: gpus, CPU: cpus}
    return {CPU: cpus or float(engine.manifest.settings.get("threads", 1))}


def room(cluster: dict[str, float], needs: dict[str, float]) -> int:
    """How many actors the cluster has room for. Raises BackendError where it is none."""
    fits = [int(cluster.get(NAMES[kind], 0.0) / much + 1e-6) for kind, much in needs.items() if much]
    if fits and min(fits) < 1:
        wants = ", ".join(f"{much:g} {NAMES[kind]}" for kind, much in needs.items())
        has = ", ".join(f"{cluster.get(name, 0.0):g} {name}" for name in NAMES.values())
        raise BackendError(f"a runner needs {wants}, and the cluster has {has}", remedy="Give it less: cpus=..., gpus=...")
    return min(fits, default=1)
