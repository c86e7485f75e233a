"""Footprint: what an engine takes on disk and in memory."""

from __future__ import annotations

from toolkit.types import Frozen


class Footprint(Frozen, frozen=True):
    """Bytes. `file` is the compiled file, `folder` all that the engine consists of.

    `memory` is how much a process of its own grew in resident memory, at its peak, by opening it and answering one batch of
    `batch` images; None where nothing tells (another system than Linux, or a GPU, whose memory is not the process's).
    """

    file: int
    folder: int
    memory: int | None = None
    batch: int = 1
