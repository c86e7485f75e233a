"""How calls are to be put together, read off a sweep; or assumed, and said to be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from toolkit.errors import MeasurementError
from toolkit.harness.batching import assumed, batching_of
from toolkit.harness.environment import read_environment
from toolkit.harness.measurement import Block, Flag, Measurement
from toolkit.harness.results import Results
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.types import TensorSpec

MANIFEST = Manifest(
    name="x",
    target="cpu",
    file="model.onnx",
    precision="fp32",
    inputs=(TensorSpec(name="i", dtype="float32", shape=("N", 3, 8, 8)),),
    outputs=(TensorSpec(name="o", dtype="float32", shape=("N", 3)),),
    profiles=(Profile(min=1, opt=8, max=32),),
    preprocess=Preprocess(size=(8, 8)),
    hashes={"file": "a" * 64},
)


def trial(batch: int, rate: float, streams: int = 1, scenario: Any = "offline", **more: Any) -> Measurement:
    """100 calls of one batch, at `rate` images a second."""
    took = round(batch / rate * 1e9)
    return Measurement(
        engine="x",
        precision="fp32",
        target="cpu",
        batch=batch,
        clock="with-transfers",
        scenario=scenario,
        started="2026-01-01T00:00:00Z",
        blocks=(Block(at_ns=0, samples_ns=(took,) * 100),),
        images=batch * 100,
        duration_ns=took * 100,
        streams=streams,
        **more,
    )


def results(*trials: Measurement, manifest: Manifest = MANIFEST) -> Results:
    return Results(environment=read_environment(), measurements=trials, manifests={"x": msgspec.to_builtins(manifest)})


def test_preferred_are_the_batches_near_the_best_rate() -> None:
    found = batching_of(MANIFEST, results(trial(1, 100), trial(4, 350), trial(8, 380), trial(16, 400), trial(32, 390)))
    assert found.measured and found.preferred == (8, 16, 32) and found.max_batch == 32
    assert found.max_wait == pytest.approx(0.01) and found.instances == 1  # the time of one image alone


def test_where_one_image_is_as_fast_nobody_waits() -> None:
    found = batching_of(MANIFEST, results(trial(1, 395), trial(8, 400)))
    assert (found.preferred, found.max_wait) == ((), 0.0)
    assert any("nothing is gained by waiting" in line for line in found.how)


def test_calls_at_once_where_they_pay() -> None:
    trials = trial(1, 100), trial(8, 400), trial(8, 700, streams=2), trial(8, 720, streams=4)
    assert batching_of(MANIFEST, results(*trials)).instances == 2
    assert batching_of(MANIFEST, results(trial(1, 100), trial(8, 400), trial(8, 410, streams=2))).instances == 1


def test_the_wait_is_that_of_the_best_server_trial_that_kept_its_bound() -> None:
    def server(offered: float, wait: float, latency_ms: float) -> Measurement:
        more = {"offered": offered, "bound_ns": 50_000_000, "settings": {"max_wait_s": wait}}
        return trial(1, 1000 / latency_ms, scenario="server", **more)

    trials = trial(1, 100), trial(8, 400), server(100, 0.003, 10), server(200, 0.006, 40), server(300, 0.009, 80)
    found = batching_of(MANIFEST, results(*trials))
    assert found.max_wait == 0.006
    assert any("kept p99 under 50 ms at 200 images/s" in line for line in found.how)


def test_batches_that_the_engine_does_not_take_do_not_count() -> None:
    small = msgspec.structs.replace(MANIFEST, profiles=(Profile(min=1, opt=4, max=4),))
    assert batching_of(small, results(trial(1, 100), trial(4, 350), trial(16, 900), manifest=small)).preferred == (4,)
    with pytest.raises(MeasurementError, match="no rate of x at a batch that it takes"):
        batching_of(small, results(trial(16, 900), manifest=small))


def test_another_build_or_another_engine_is_refused() -> None:
    other = msgspec.structs.replace(MANIFEST, hashes={"file": "b" * 64})
    with pytest.raises(MeasurementError, match="another build of x"):
        batching_of(MANIFEST, results(trial(1, 100), manifest=other))
    with pytest.raises(MeasurementError, match="no measurement of y; they hold x"):
        batching_of(msgspec.structs.replace(other, name="y"), results(trial(1, 100)))
    on_openvino = msgspec.structs.replace(MANIFEST, target="openvino")
    with pytest.raises(MeasurementError, match="another build"):
        batching_of(on_openvino, results(trial(1, 100)))


def test_flags_are_said() -> None:
    flag = Flag(trouble="other-load", text="others ran", remedy="stop them")
    found = batching_of(MANIFEST, results(trial(1, 100), trial(8, 400, flags=(flag,))))
    assert any("flagged: other-load" in line for line in found.how)


def test_without_a_sweep_it_is_assumed_and_said() -> None:
    found = assumed(MANIFEST)
    assert (found.preferred, found.max_batch, found.max_wait, found.measured) == ((8,), 32, 0.002, False)
    assert found.how[0].startswith("not measured")
