"""What a batcher is set to: from a real sweep, from what was asked, and never a wait that costs more than it can save."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest

from tests.runtime.test_runner import MANIFEST
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError
from toolkit.runtime.runner import Runner
from toolkit.serve.limits import Limits, Settings, Source, sources
from toolkit.serve.live import open_live
from toolkit.serve.metrics import Metrics
from toolkit.serve.sweep import sweep, worth_waiting


class Costs:
    """An executor that takes `fixed` seconds a call and `each` an image."""

    max_batch = None

    def __init__(self, fixed, each):
        self.fixed, self.each, self.sizes = fixed, each, set()

    def run(self, batch):
        self.sizes.add(len(batch))
        time.sleep(self.fixed + self.each * len(batch))
        return np.zeros((len(batch), 3), np.float32)

    def close(self):
        pass


def test_where_a_call_costs_and_an_image_does_not_large_batches_are_taken_and_waited_for():
    found = sweep(Runner(MANIFEST, Costs(0.004, 0.0)), bound=1.0, batches=(1, 2, 4, 8), seconds=0.0)
    assert found.preferred == (8,)
    assert found.max_wait >= 0.002
    assert found.how[0].startswith("measured at the start, images a second by batch: 1: ")


def test_a_batch_beyond_half_the_bound_is_not_tried_further():
    executor = Costs(0.0, 0.004)
    found = sweep(Runner(MANIFEST, executor), bound=0.03, batches=(1, 2, 4, 8, 16, 32), seconds=0.0)
    assert found.preferred <= (4,)
    assert max(executor.sizes) <= 8


def test_nobody_waits_longer_than_sharing_can_save():
    assert worth_waiting(0.010, 0.001) == pytest.approx(0.009)
    assert worth_waiting(0.010, 0.011) == 0.0


@pytest.mark.parametrize(
    ("settings", "batch", "wait"),
    [({"max_batch": 3, "max_wait": 0.5}, 3, 0.5), ({"max_batch": 3}, 3, None), ({"max_wait": 0.5}, None, 0.5), ({}, None, None)],
)
def test_what_is_asked_for_overrules_what_was_measured(engines, settings, batch, wait):
    asked = Settings(sources=(Source(path=engines / "fp32"),), **settings)
    live = open_live(Engine.open(engines / "fp32"), asked, Metrics().gauges("net", "1"))
    try:
        assert batch is None or live.batching.preferred == (batch,)
        assert wait is None or live.batching.max_wait == wait
        assert 0 <= live.batching.max_wait <= 0.5
        assert any("as asked" in said for said in live.batching.how) == bool(settings)
        assert live.queue >= 4 * max(live.batching.preferred)
        assert live.queue <= Limits().queue_bytes // (28 * 28 * 4)
    finally:
        live.close()


@pytest.mark.parametrize(
    ("word", "name", "version", "path"),
    [
        ("a/b", None, None, "a/b"), ("x=a/b", "x", None, "a/b"), ("x@2=a/b", "x", "2", "a/b"), ("x@007=a", "x", "7", "a"),
        ("x=a=b", "x", None, "a=b"), ("../x=y", None, None, "../x=y"), ("x@y=a", None, None, "x@y=a"),
    ],
)  # fmt: skip
def test_names_and_versions(word, name, version, path):
    [found] = sources([word])
    assert (found.name, found.version, str(found.path)) == (name, version, path)


def test_no_engine_and_limits_that_cannot_be():
    with pytest.raises(EngineError, match="no engine to serve"):
        sources([])
    for name in ("body", "seconds", "queue"):
        with pytest.raises(ValueError, match="above 0"):
            Limits(**{name: 0})
    assert msgspec.structs.replace(Limits(), queue=None).queue is None
