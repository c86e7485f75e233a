"""A predicted judgement says how far a GPU's choice of roundings may move it; a measured one has nothing to say of that."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from toolkit import orders
from toolkit.engine.engine import Engine
from toolkit.engine.envelope import Close, Envelope
from toolkit.graph.envelope import roundings
from toolkit.images.dataset import open_data
from toolkit.recipe import Recipe

pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
ENGINES = Path(__file__).parents[2] / "engines"
IMAGES = 64


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """An FP16 engine of random weights, whose answers lie close to one another, for a GPU and for this CPU."""
    recipe = Recipe.load(ENGINES / "fashion-resnet18-fp16.toml")
    reference = msgspec.structs.replace(recipe.reference, weights="random:3", width=0.25, stem="small")
    accept = msgspec.structs.replace(recipe.accept, data="packaged:fashion-test", images=IMAGES, min_agreement=0.0)
    recipe = msgspec.structs.replace(recipe, reference=reference, accept=accept)
    made = orders.build_all([recipe], "cpu,rtx", tmp_path_factory.mktemp("built"), proof=False)
    return {manifest.target: Engine.open(folder) for folder, manifest in made}


def test_the_bounds_hold_what_each_way_of_rounding_gives(built: dict[str, Engine]) -> None:
    engine = built["rtx"]
    found = engine.judge()
    assert found.how.startswith("predicted") and found.envelope is not None and found.verdict is not None
    assert found.envelope.agreement is not None and found.envelope.top1 is not None
    images = open_data("packaged:fashion-test", engine.recipe.preprocess, IMAGES)
    batch = next(images.batches(IMAGES))
    tops = [live()(batch).argmax(1) for live in roundings(engine.graph).values()]
    assert len(found.envelope.ways) == len(tops) == 5
    assert found.envelope.flips == tuple(np.flatnonzero([len({*some}) > 1 for some in zip(*tops, strict=True)]))
    low, high = found.envelope.top1
    assert all(low <= (top == images.labels).mean() <= high for top in tops)
    assert found.envelope.agreement[0] <= found.verdict.agreement <= found.envelope.agreement[1]
    assert "depend on how the GPU rounds (5 ways tried): predicted agreement between" in str(found)


def test_images_that_may_flip_are_named_by_their_lead_and_what_rounding_moved_it(built: dict[str, Engine]) -> None:
    engine = built["rtx"]
    found = engine.judge().envelope
    assert found is not None and found.close
    images = open_data("packaged:fashion-test", engine.recipe.preprocess, IMAGES)
    ways = [live()(next(images.batches(IMAGES))).astype(np.float64) for live in roundings(engine.graph).values()]
    named = {one.index: one for one in found.close}
    assert set(found.flips) <= set(named)
    for index in range(IMAGES):
        first, second = np.argsort(ways[0][index])[:-3:-1]
        leads = [way[index, first] - np.delete(way[index], first).max() for way in ways]
        lead, moved = ways[0][index, first] - ways[0][index, second], max(abs(one - leads[0]) for one in leads)
        if abs(lead - 2 * moved) > 1e-3 * moved:  # batches of another size may move the last bit of FP32
            assert (index in named) == (lead < 2 * moved or index in found.flips)
        if index in named:
            assert named[index].image == images.name(index)
            np.testing.assert_allclose([named[index].lead, named[index].moved], [lead, moved], rtol=1e-2, atol=1e-5)
    order = [one.lead - one.moved for one in found.close]
    assert order == sorted(order)


def test_of_many_images_a_share_is_tried_and_that_is_said(built: dict[str, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = built["rtx"].judge().envelope
    monkeypatch.setattr("toolkit.engine.envelope.MOST", 16)
    found = built["rtx"].judge().envelope
    assert whole is not None and found is not None and (whole.images, found.images) == (0, 16)
    which = np.unique(np.linspace(0, IMAGES - 1, 16).astype(int)).tolist()
    assert found.flips == tuple(index for index in whole.flips if index in which)
    assert "5 ways tried on 16 of the images" in str(found)


def test_a_measured_engine_has_no_envelope(built: dict[str, Engine]) -> None:
    assert built["cpu"].judge().envelope is None


def test_it_reads_as_a_sentence() -> None:
    ways = ("as typed", "nothing rounded")
    assert str(Envelope(ways=ways, flips=(3,), agreement=(0.98, 0.99), top1=(0.5, 0.51))) == (
        "1 answer depends on how the GPU rounds (2 ways tried): predicted agreement between 98.00% and 99.00%, "
        "top-1 between 50.00% and 51.00%"
    )
    close = tuple(Close(index=n, image=f"{n}.png", lead=0.01 * n, moved=0.02) for n in (1, 2, 3, 4))
    assert str(Envelope(ways=ways, flips=(), close=close)).splitlines() == [
        "0 answers depend on how the GPU rounds (2 ways tried)",
        "  top-1 may change on 1.png (leads by 0.01, moved by 0.02), 2.png (leads by 0.02, moved by 0.02), "
        "3.png (leads by 0.03, moved by 0.02) and 1 more",
    ]
