"""The parts of a page that stand on their own: histograms, timeline, classes, worst images, noise; two runs; shared files."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

import msgspec
import numpy as np
import pytest
from rich.console import Console

from tests.report.conftest import HOSTILE, measure, ranges
from tests.report.test_page import browse
from toolkit.engine.inspection import Inspection
from toolkit.errors import MeasurementError
from toolkit.harness.compare import compare
from toolkit.harness.conditions import Moment
from toolkit.harness.layers import NetworkLayer
from toolkit.harness.results import Results
from toolkit.harness.share import hidden, shared
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.report.compare_page import compare_page, differences
from toolkit.report.engine_page import engine_page
from toolkit.report.gallery import worst_first
from toolkit.report.histograms import histograms, spread
from toolkit.report.machines import gallery_of, machines
from toolkit.report.page import html
from toolkit.report.ratios import classes
from toolkit.report.timeline import timeline
from toolkit.report.write import read_noise
from toolkit.types import TensorSpec


def text(parts: list[Element]) -> str:
    return "".join(tostring(part, encoding="unicode", method="html") for part in parts)


def test_histograms_put_the_tensor_on_which_methods_differ_most_first() -> None:
    found = ranges(np.random.default_rng(1))
    drawn = text(histograms(found, "entropy"))
    assert spread(found.tensors["<i>wild</i>"]) > 2 > spread(found.tensors["calm"])
    assert drawn.index("&lt;i&gt;wild") < drawn.index("calm")
    assert "<i>" not in drawn
    assert "This engine was scaled by entropy." in drawn
    wild = found.tensors["<i>wild</i>"].thresholds
    assert f"percentile-99.9 {wild['percentile-99.9']:.4g}" in drawn
    cut = re.search(r"percentile-99.9</title><path d=\"M([\d.]+) ", drawn)
    assert cut
    assert float(cut[1]) == pytest.approx(320 * wild["percentile-99.9"] / wild["minmax"], rel=0.01)


def test_the_timeline_marks_launches_and_throttling(results: Results) -> None:
    launched = tuple(
        msgspec.structs.replace(m, blocks=tuple(msgspec.structs.replace(b, launch=i // 5) for i, b in enumerate(m.blocks)))
        for m in results.measurements
    )
    hot = (*results.moments, Moment(at_ns=10 * 10**9, other=0.5, cpu_throttles=3, gpu_throttles=("power cap",)))
    cold = tuple(msgspec.structs.replace(m, cpu_throttles=1) for m in hot[:-1])
    drawn = text(timeline(msgspec.structs.replace(results, measurements=launched, moments=(*cold, hot[-1]))))
    assert "engines reopened, time 1" in drawn
    assert "throttled: the CPU ran too hot 2 times, power cap" in drawn
    assert "50.0 %" in drawn, "the most that others used"
    assert "machine&#x27;s own speed" in drawn or "machine's own speed" in drawn
    again = msgspec.structs.replace(results, moments=(*results.moments, *results.moments))
    assert "These are 2 runs" in text(timeline(again))
    assert "was not watched" in text(timeline(msgspec.structs.replace(results, moments=())))


def test_classes_come_worst_first_and_say_what_is_beyond_chance(results: Results) -> None:
    verdict = next(v for v in results.verdicts if v.engine == HOSTILE)
    drawn = text(classes(results))
    points = [float(x) for x in re.findall(r'<td class="figure">([+-]\d+\.\d\d)</td>', drawn)]
    assert points == sorted(points)
    assert len(points) == sum(c.engine != c.reference for c in verdict.changes) > 0
    assert "none beyond chance" in drawn
    assert "answered as often right as before" in drawn
    assert "no accuracy by class" in text(classes(msgspec.structs.replace(results, verdicts=())))


def test_the_worst_disagreement_is_a_right_answer_that_was_sure(results: Results) -> None:
    verdict = next(v for v in results.verdicts if v.disagreements)
    ours, theirs = (next(a for a in results.answers if a.engine == name) for name in (verdict.engine, verdict.reference))
    order = worst_first(verdict, ours, theirs)
    assert sorted(order) == sorted(verdict.disagreements)
    margins = dict(zip(verdict.disagreements, verdict.margins, strict=True))
    assert ours.labels
    kinds = [0 if theirs.top1[i] == ours.labels[i] else 2 if ours.top1[i] == ours.labels[i] else 1 for i in order]
    assert kinds == sorted(kinds)
    broken = [margins[i] for i, kind in zip(order, kinds, strict=True) if kind == 0]
    assert broken == sorted(broken, reverse=True)
    assert all(margin >= 0 for margin in broken)


def test_noise_of_a_why_is_drawn_on_the_network(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "why.json"
    path.write_text(json.dumps({"engine": HOSTILE, "snr": 30, "layers": [{"name": "layer3.conv", "share": 0.4, "kind": "Conv"}]}))
    name, noise = read_noise(path)
    assert (name, noise) == (HOSTILE, {"layer3.conv": 0.4})
    page = html(results, None, {name: noise})
    assert "layer3.conv (Conv, int8): 1.6% of the time, 40.0% of the noise" in page
    path.write_text("{}")
    with pytest.raises(MeasurementError, match="toolkit why --json"):
        read_noise(path)


def test_two_runs_on_one_page(results: Results, tmp_path: Path) -> None:
    slower = tuple(
        measure(m.engine, m.precision, 1.3 * m.blocks[0].samples_ns[0] * 1e-6 / m.batch**0.9, m.batch, np.random.default_rng(7))
        for m in results.measurements
        if m.engine == "fp32"
    )
    rest = tuple(m for m in results.measurements if m.engine != "fp32")
    new = msgspec.structs.replace(results, measurements=(*rest, *slower))
    page = compare_page(results, new, compare(results, new))
    assert "comparisons got worse: fp32" in page
    assert page.count("OLD</span>") == page.count("NEW</span>") == 4, "a chart an engine, with both runs"
    assert "&lt;script&gt;" in page
    seen, console = browse(page, tmp_path, 390)
    assert (console, seen.scripts, seen.flat) == ("", 1, 0)
    assert seen.wide <= 390
    same = compare_page(results, results, compare(results, results))
    assert "No regression beyond 3%" in same


def test_the_terminal_shows_alarms_first_and_cuts_nothing(results: Results) -> None:
    slower = tuple(
        measure(m.engine, m.precision, 9.0, m.batch, np.random.default_rng(7)) for m in results.measurements if m.engine == "fp32"
    )
    rest = tuple(m for m in results.measurements if m.engine != "fp32")
    found = compare(results, msgspec.structs.replace(results, measurements=(*rest, *slower)))
    for width in (40, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(differences(found))
        shown = console.export_text()
        assert shown.index("slower") < shown.index("no change shown")
        assert "…" not in shown


def test_an_engine_is_a_page_of_its_own(tmp_path: Path) -> None:
    spec = TensorSpec(name="input", dtype="float32", shape=("N", 3, 8, 8))
    manifest = Manifest(
        name=HOSTILE, target="cpu", file="model.onnx", precision="int8", inputs=(spec,), outputs=(spec,),
        profiles=(Profile(min=1, opt=1, max=8),), preprocess=Preprocess(size=(8, 8)), notes=("WARNING: <b>this</b>",),
        recipe={"calibration": {"method": "entropy"}},
    )  # fmt: skip
    found = Inspection(manifest=manifest, layers={"Conv": 2}, findings=(), ranges=ranges(np.random.default_rng(1)))
    layers = (
        NetworkLayer(name="a", kind="Conv", precision="int8"),
        NetworkLayer(name="<b>", kind="Conv", precision="fp16", reads=("a",)),
    )
    page = engine_page(found, layers)
    assert "&lt;b&gt; (Conv, fp16)" in page
    assert "This engine was scaled by entropy." in page
    seen, console = browse(page, tmp_path, 390, act="every('figure.network g.box').length")
    assert (console, seen.scripts, seen.did) == ("", 1, 2)
    assert seen.wide <= 390
    bare = engine_page(msgspec.structs.replace(found, ranges=None), ())
    assert "It was not calibrated." in bare
    assert "Its graph was not read" in bare


SECRETS = ("/home/jane/models", "C:\\Users\\jane", "~/nets/x.onnx", "jane@box.example.org", "/data/x")


@pytest.mark.parametrize("secret", SECRETS)
def test_a_path_is_hidden_and_a_unit_is_not(secret: str) -> None:
    assert "jane" not in hidden(f"cannot read {secret}: no such file")
    assert secret not in hidden(f"'{secret}' is not here")
    for kept in (
        "1,200 img/s at batch 8",
        "int8+fp16/fp32",
        "under /sys/class/powercap",
        "same within 0.5 points: -0.1 [-0.2, +0.0]",
    ):
        assert hidden(kept) == kept


def test_a_shared_file_keeps_samples_and_gives_nobody_away(results: Results, tmp_path: Path) -> None:
    odd = msgspec.structs.replace(
        results,
        manifests={
            name: {**m, "notes": [f"read /home/jane/{name[:3]}", "on janes-box"], "recipe": {"data": "/home/jane"}, "seal": "s"}
            for name, m in results.manifests.items()
        },
        failures={"fp8": "jane@janes-box failed at /home/jane/x.onnx"},
        environment=msgspec.structs.replace(
            results.environment, commit="c" * 40, thread_settings={"OMP_NUM_THREADS": "1", "X": "/home"}
        ),
    )
    given = shared(odd, ["janes-box", "jane"])
    given.write(tmp_path / "mine.json")
    written = (tmp_path / "mine.json").read_text()
    for word in ("jane", "/home", "trouser", "c" * 40, '"recipe"', '"seal"'):
        assert word not in written, word
    assert [m.blocks for m in given.measurements] == [m.blocks for m in odd.measurements]
    assert [v.text for v in given.verdicts] == [v.text for v in odd.verdicts]
    assert not given.answers
    assert shared(Results.read(tmp_path / "mine.json")) == Results.read(tmp_path / "mine.json"), "nothing more to take out"
    with pytest.raises(MeasurementError, match="no timing"):
        shared(msgspec.structs.replace(results, measurements=()))


def test_the_gallery_has_a_part_for_each_device(results: Results, tmp_path: Path) -> None:
    for device, name in (("Epyc, 2 cores", "a"), ("<b>Xeon</b>, 4 cores", "b"), ("Epyc, 2 cores", "c")):
        there = msgspec.structs.replace(results, environment=msgspec.structs.replace(results.environment, device=device))
        shared(there).write(tmp_path / f"{name}.json")
    page = machines(gallery_of(tmp_path))
    assert "Measured on 2 devices" in page
    assert re.findall(r"<h3>([a-c])\.json", page) == ["b", "a", "c"]
    assert "&lt;b&gt;Xeon" in page
    assert page.count(">a.json</td>") == page.count(">c.json</td>") == 4, "which run a row is of"
    seen, console = browse(page, tmp_path, 390)
    assert (console, seen.flat) == ("", 0)
    assert seen.wide <= 390
    (tmp_path / "none").mkdir()
    with pytest.raises(MeasurementError, match="holds no results"):
        gallery_of(tmp_path / "none")
