"""`tune` for TensorRT as it walks on a GPU, here on the played library and device. What a GPU lacks costs one candidate alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.testing.graphs import install
from tests.tuning.small import SMALL
from toolkit.errors import BudgetError, UndecidedError
from toolkit.recipe import Recipe
from toolkit.tuning.choose import FASTER, choose
from toolkit.tuning.parts import units
from toolkit.tuning.places import other_places
from toolkit.tuning.search import Found, Search
from toolkit.tuning.sensitivity import sensitivity
from toolkit.tuning.trial import Trial
from toolkit.tuning.ways import gpu_of
from toolkit.tuning.workbench import Workbench, vary
from toolkit.types import Target

RECIPE = SMALL + """
[precision]
int8 = true
equalize = "none"
[calibration]
data = "packaged:fashion-train"
images = 12
method = "minmax"
[build]
target = "tensorrt"
batch = [1, 2, 2]
[accept]
data = "packaged:fashion-test"
images = 40
max_top1_drop = 100
min_agreement = 0.9
"""


@pytest.fixture
def patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return monkeypatch


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.parse(RECIPE)


@pytest.fixture(scope="module")
def bench(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Made once: the search's own mutable parts are `Search`'s, and each test looks at what it adds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return Workbench(recipe, limit=1000)


def walk(bench: Workbench) -> tuple[Search, list[Trial]]:
    """The steps of a search that are a GPU's own, in their order, on a network of two parts."""
    search = Search(bench)
    best = search._halved(search._try("int8", bench.recipe))
    search.layers = sensitivity(bench, best, units(bench.fp32(), 2))
    found = [*search._leave_out(best, "int8", "INT8"), *search._fp8(best)]
    return search, [*found, *search._places(found, best)]


def test_a_search_on_a_gpu_tries_every_kind_of_candidate_and_goes_on_after_a_stop(
    patch: pytest.MonkeyPatch, recipe: Recipe, bench: Workbench
) -> None:
    install(patch)
    first, found = walk(bench)
    names = [trial.name for trial in found]
    for wanted in ("int8", "int8 but ", "fp8", "sums bare", "first layer bare", "last product bare", "pairs at pools"):
        assert any(wanted in name for name in names), wanted
    assert all(trial.over == "int8" for trial in found if "bare" in trial.name or "pools" in trial.name)
    assert "around INT8: fp16" in " ".join(first.reasons) and bench.resumed == 0
    again = Workbench(recipe, limit=1000)  # the same search, after the first was stopped: no graph is run again
    _, same = walk(again)
    assert [(trial.name, trial.snr, trial.searched) for trial in same] == [(t.name, t.snr, t.searched) for t in found]
    assert again.resumed > len(names)


def test_finalists_are_built_run_and_given_back_and_share_what_was_timed(patch: pytest.MonkeyPatch, bench: Workbench) -> None:
    played = install(patch)
    int8 = bench.judge(bench.trial("int8", bench.recipe), held_out=False)
    pools = bench.judge(bench.trial("int8, pairs at pools", vary(bench.recipe, pools=True)), held_out=False)
    tried = [int8, msgspec.structs.replace(pools, over="int8")]
    winner, finalists, reasons = choose(bench, Found(tried, tried, [], []), 0.05)
    assert all(trial.p10_ms is not None for trial in finalists) and winner.held_out is not None
    assert winner.recipe.build.target == "tensorrt" and not winner.recipe.build.timing_cache
    first, second, *again = played._timed
    assert 0 < second < first and again == [0]  # most layers are the same; the winner, built for its verdict, is all known
    assert played._device.opened == 0 and played._device.held() == {}
    assert not any("cost model" in reason for reason in reasons)


def test_what_the_gpu_lacks_costs_that_candidate_alone(patch: pytest.MonkeyPatch, bench: Workbench) -> None:
    """FP8 on sm86 once had the whole measurement given up for the cost model, as if there were no GPU."""
    install(patch, sm=86)
    tried = [bench.judge(bench.trial(name, one), held_out=False) for name, one in (
        ("fp16", vary(bench.recipe, int8=False, compute="fp16")),
        ("int8", bench.recipe),
        ("fp8", vary(bench.recipe, int8=False, fp8=True, compute="fp16")),
    )]  # fmt: skip
    _, finalists, reasons = choose(bench, Found(tried, tried, [], []), 0.05)
    assert {trial.name for trial in finalists} == {"fp16", "int8"} and all(trial.p10_ms is not None for trial in finalists)
    assert any(reason.startswith("fp8 is out: sm86 cannot compute in FP8") for reason in reasons)
    found = Search(bench)._fp8(tried[1])
    assert found == []


def test_another_place_must_be_faster_than_the_plain_one(patch: pytest.MonkeyPatch, bench: Workbench) -> None:
    """By the cost model, as no GPU is here: the rule is the same."""
    int8 = bench.judge(bench.trial("int8", bench.recipe), held_out=False)
    other = bench.judge(bench.trial("int8, sums bare", vary(bench.recipe, keep=())), held_out=False)
    for share, winner in ((FASTER + 0.01, "int8"), (FASTER - 0.01, "int8, sums bare")):
        tried = [int8, msgspec.structs.replace(other, over="int8", cost=share * int8.cost)]
        found, _, reasons = choose(bench, Found(tried, tried, [], []))
        assert found.name == winner
        assert any("gives way to int8" in reason for reason in reasons) == (winner == "int8")


def test_places_are_those_that_the_graph_has(patch: pytest.MonkeyPatch, bench: Workbench) -> None:
    places = other_places(bench.fp32(), bench.recipe.precision)
    assert places["first layer bare"] == {"keep": ("conv1",)} and places["last product bare"] == {"keep": ("fc",)}
    assert len(places["sums bare"]["keep"]) == 8 and places["pairs at pools"] == {"pools": True}
    again = vary(bench.recipe, keep=("conv1", "fc"), pools=True).precision
    assert list(other_places(bench.fp32(), again)) == ["sums bare"]
    graph = bench.graph(vary(bench.recipe, pools=True))
    pool = next(node for node in graph.graph if node.op_type in ("ReduceMean", "GlobalAveragePool"))
    assert pool.inputs[0] is not None and pool.inputs[0].producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]


def test_without_a_gpu_places_are_not_varied_and_that_is_said(patch: pytest.MonkeyPatch, bench: Workbench) -> None:
    search = Search(bench)
    trial: Any = bench.judge(bench.trial("int8", bench.recipe), held_out=False)
    assert gpu_of(Target("cpu")) is None and search.gpu is None
    assert search._places([trial], trial) == [] and search._fp8(trial) == []
    assert "no GPU is here" in " ".join(search.reasons) and "fp8 was not tried" in " ".join(search.reasons)


def test_a_gpu_is_one_for_a_target_that_names_it(patch: pytest.MonkeyPatch) -> None:
    install(patch, sm=90)
    assert gpu_of(Target("tensorrt")) == 90
    assert gpu_of(Target.parse("rtx:sm89")) is None and gpu_of(Target.parse("rtx:sm89+sm90")) == 90
    assert gpu_of(Target.parse("rtx")) == 90 and gpu_of(Target("cpu")) is None


def test_a_budget_that_nothing_meets_ships_nothing(patch: pytest.MonkeyPatch, bench: Workbench) -> None:
    install(patch)
    int8 = bench.judge(bench.trial("int8", bench.recipe), held_out=False)
    assert int8.searched is not None
    refused = msgspec.structs.replace(int8, searched=msgspec.structs.replace(int8.searched, min_agreement=1.01))
    with pytest.raises(BudgetError, match="cannot be shown to be met") as missed:
        choose(bench, Found([refused], [refused], [], []), 0.05)
    assert missed.type is BudgetError
    few = msgspec.structs.replace(
        int8.searched, images=20, agreement=0.95, disagreements=(3,), margins=(), test=None, min_agreement=0.96
    )
    assert few.state == "undecided"
    with pytest.raises(UndecidedError, match="cannot be shown to be met"):  # exit code 3, as where it is built
        choose(bench, Found([], [refused, msgspec.structs.replace(int8, searched=few)], [], []), 0.05)
