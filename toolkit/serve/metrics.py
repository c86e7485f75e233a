"""Metrics, in Prometheus' form: requests, queues, batches and swaps by model. Several workers share them by files.

`prometheus_client` decides when it is first imported whether values live in memory or, where the environment names
`PROMETHEUS_MULTIPROC_DIR`, in files that all workers of a server map: this module is imported once that is settled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from toolkit.runtime.batcher import Ran

SHARED = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
SECONDS = tuple(round(10 ** (exponent / 5 - 4), 7) for exponent in range(28))  # 0.1 ms to 25 s, five to a decade
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
MODEL = ("model", "version")


class Metrics:
    """All of one process. Labels are names of models that are served, never words of a request."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter("toolkit_requests", "Requests answered", (*MODEL, "route", "status"), registry=own)
        self.latency = Histogram(
            "toolkit_request_seconds", "From a request's head to its answer", (*MODEL, "route"), registry=own, buckets=SECONDS
        )
        self.errors = Counter("toolkit_errors", "Requests refused or failed", (*MODEL, "reason"), registry=own)
        self.queue = Gauge("toolkit_queue_images", "Images that wait", MODEL, registry=own, multiprocess_mode="livesum")
        self.bound = Gauge("toolkit_queue_limit", "Images that may wait", MODEL, registry=own, multiprocess_mode="livesum")
        self.batch = Histogram("toolkit_batch_images", "Images of a batch", MODEL, registry=own, buckets=IMAGES)
        self.waited = Histogram(
            "toolkit_queue_seconds", "A request's wait for its batch", MODEL, registry=own, buckets=SECONDS
        )
        self.took = Histogram("toolkit_batch_seconds", "A batch in the engine", MODEL, registry=own, buckets=SECONDS)
        self.most = Gauge("toolkit_max_batch", "Images that make a batch full", MODEL, registry=own, multiprocess_mode="livemax")
        self.wait = Gauge(
            "toolkit_max_wait_seconds", "The longest wait for others", MODEL, registry=own, multiprocess_mode="livemax"
        )
        self.swaps = Counter("toolkit_swaps", "Engines replaced by a new build", MODEL, registry=own)
        self.last = Gauge(
            "toolkit_last_answer_seconds", "When a batch was last answered", MODEL, registry=own, multiprocess_mode="max"
        )
        self.inflight = Gauge("toolkit_inflight_requests", "Requests in progress", registry=own, multiprocess_mode="livesum")

    def gauges(self, name: str, version: str) -> Gauges:
        return Gauges(self, name, version)

    def text(self) -> bytes:
        """What Prometheus reads: of all workers."""
        return generate_latest(self._whole())

    def samples(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """(name, labels, value) of every sample of all workers."""
        for family in self._whole().collect():
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def _whole(self) -> CollectorRegistry:
        if SHARED not in os.environ:
            return self.registry
        whole = CollectorRegistry()
        MultiProcessCollector(whole)  # type: ignore[no-untyped-call]
        return whole


class Gauges:
    """What one model's engines tell; looked up once, as a lookup by labels takes longer than the count itself."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        labels = (name, version)
        self._queue, self._batch = metrics.queue.labels(*labels), metrics.batch.labels(*labels)
        self._waited, self._took = metrics.waited.labels(*labels), metrics.took.labels(*labels)
        self._most, self._wait = metrics.most.labels(*labels), metrics.wait.labels(*labels)
        self._last = metrics.last.labels(*labels)
        self._bound, self._swaps = metrics.bound.labels(*labels), metrics.swaps.labels(*labels)

    def opened(self, full: int, wait: float, queue: int) -> None:
        self._most.set(full)
        self._wait.set(wait)
        self._bound.set(queue)

    def swapped(self) -> None:
        self._swaps.inc()

    def waiting(self, images: int) -> None:
        self._queue.set(images)

    def ran(self, ran: Ran, waiting: int) -> None:
        self._batch.observe(ran.images)
        self._took.observe(ran.took)
        for seconds in ran.waited:
            self._waited.observe(seconds)
        self._queue.set(waiting)
        self._last.set(time.time())


def forget(process: int) -> int:
    """A worker has ended: its queue is gone, what it had counted stays. Gives back how many requests it had under way."""
    file = Path(os.environ[SHARED]) / f"gauge_livesum_{process}.db"
    merged = MultiProcessCollector.merge([str(file)]) if file.exists() else ()  # type: ignore[no-untyped-call]
    ours = (metric for metric in merged if metric.name == "toolkit_inflight_requests")
    found: list[float] = [sample.value for metric in ours for sample in metric.samples]
    mark_process_dead(process)  # type: ignore[no-untyped-call]
    return round(sum(found))
