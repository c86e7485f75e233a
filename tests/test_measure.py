"""A bench of real engines with nothing but defaults: what `make demo` and `toolkit bench` do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from PIL import Image

from toolkit import orders
from toolkit.engine.engine import Engine
from toolkit.errors import MeasurementError
from toolkit.harness.latency import Sampling
from toolkit.harness.results import Results
from toolkit.harness.share import shared
from toolkit.measure import REFERENCE, bench
from toolkit.recipe import Recipe
from toolkit.report.page import html
from toolkit.report.summary import merge
from toolkit.report.table import markdown
from toolkit.report.told import told

ENGINES = Path(__file__).parent.parent / "engines"


def recipe(kind: str) -> Recipe:
    """Of the demo, but judged on a fifth of the images."""
    demo = Recipe.load(ENGINES / f"fashion-resnet18-{kind}.toml")
    return msgspec.structs.replace(demo, accept=msgspec.structs.replace(demo.accept, images=2000))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("engines")
    return [folder for folder, _ in orders.build_all([recipe("fp32"), recipe("int8")], None, out, proof=False)]


def test_defaults_time_every_engine_beside_its_reference(engines: list[Path], tmp_path: Path) -> None:
    short = Sampling(seconds=0.5, warmup=0.1, least_blocks=3)
    found = bench(engines, plan=short, save=lambda results: results.write(tmp_path / "r.json"))
    names = {REFERENCE, "fashion-resnet18-fp32", "fashion-resnet18-int8"}
    assert set(found.engines) == names
    for name in names:
        timed = found.of(name)
        assert {(m.batch, m.clock) for m in timed} == {(1, "with-transfers"), (8, "with-transfers"), (1, "end-to-end")}
        assert all(len(m.seconds) for m in timed)
    assert {verdict.engine: verdict.word for verdict in found.verdicts} == dict.fromkeys(names - {REFERENCE}, "same")
    assert found.peaks is not None
    assert {layers.engine for layers in found.layers} == names - {REFERENCE}
    assert Results.read(tmp_path / "r.json") == found


def test_threads_overrule_what_the_engines_were_built_with(engines: list[Path]) -> None:
    short = Sampling(seconds=0.2, warmup=0.05, least_blocks=3)
    alone = bench(engines, plan=short, threads=1)
    assert {m["settings"]["threads"] for m in alone.manifests.values()} == {1}
    assert not any(block.handoff for m in alone.measurements for block in m.blocks)
    both = bench(engines, plan=short, threads=2)
    assert {m["settings"]["threads"] for m in both.manifests.values()} == {2}
    assert all(len(block.handoff) == 2 for m in both.measurements for block in m.blocks)
    assert both.yardstick is not None
    assert both.yardstick.handoff is not None


def test_threads_are_refused_where_no_cpu_computes(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    [(folder, _)] = orders.build_all([recipe("fp32")], "rtx:sm89", tmp_path, proof=False)
    with pytest.raises(MeasurementError, match="--threads is for engines on the CPU"):
        bench([folder], threads=1)


def test_one_engine_is_judged_against_another(engines: list[Path]) -> None:
    found = Engine.open(engines[1]).judge(against=engines[0])
    assert found.how == "measured"
    verdict = found.verdict
    assert verdict is not None
    assert (verdict.engine, verdict.reference) == ("fashion-resnet18-int8", "fashion-resnet18-fp32")
    assert verdict.word == "same"


def test_an_engine_that_cannot_run_here_is_predicted(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    [(folder, _)] = orders.build_all([recipe("int8")], "rtx:sm89", tmp_path, proof=False)
    found = Engine.open(folder).judge()
    assert found.accepted
    assert found.how.startswith(("predicted: ", "measured"))


def test_what_is_assumed_of_labels_is_said_wherever_they_are_compared(golden: Engine, tmp_path: Path) -> None:
    """Ten folders under other names than the ten classes': they are numbered in their order, by `--data` as at build."""
    for index in range(10):
        (tmp_path / "val" / f"c{index}").mkdir(parents=True)
        Image.new("L", (28, 28), 20 * index).save(tmp_path / "val" / f"c{index}" / "a.png")
    data, said = str(tmp_path / "val"), "its folders are not the model's class names; they are taken in their order"
    assert any(said in remark for remark in golden.judge(data).remarks)
    assert any(said in remark for remark in golden.judge(data, against=golden).remarks)
    short = Sampling(seconds=0.2, warmup=0.1, least_blocks=2)
    found = bench([golden], plan=short, data=data, batches=(1,))
    assert any(said in note for note in found.notes)
    assert any(said in note for note in told(found)["notes"])
    assert all("they are taken in their order" in text for text in (markdown(found), html(found)))
    assert merge([found, found]).notes == found.notes
    assert shared(found).notes == (), "they name folders"
    recipe = {**golden.manifest.recipe, "accept": {}}
    bare = Engine(golden.path, msgspec.structs.replace(golden.manifest, recipe=recipe), golden.contents)
    assert bench([bare], plan=short, batches=(1,)).notes[0].startswith("accuracy was not compared: the recipe of")
