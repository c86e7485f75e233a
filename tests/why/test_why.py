"""why finds the layer that was made sick, says what ails it, and its first remedy keeps its word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from tests.graph.networks import fashion_graph, pictures
from tests.graph.test_qdq_values import network
from tests.graph.test_select_values import HELD, TEXT, tiny
from tests.why.conftest import RECIPE, SICK, build
from toolkit import pipeline
from toolkit.calibration import collect
from toolkit.engine.engine import Engine
from toolkit.errors import BudgetError, DataError, EngineError
from toolkit.graph.edit import constant
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.qdq import quantize
from toolkit.graph.rounding import as_rounded
from toolkit.graph.run import graph_runner
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.softmax import before_softmax, centered
from toolkit.harness.answers import snr
from toolkit.onnxfile import serialize
from toolkit.outputs import Outputs
from toolkit.recipe import Calibration, Precision, Recipe
from toolkit.report.why import headline, why_table
from toolkit.report.why_page import why_page
from toolkit.settle import hold_back
from toolkit.types import Target, quiet
from toolkit.why import Why, remedied, why
from toolkit.why.alone import alone
from toolkit.why.analysis import losses
from toolkit.why.blocks import blocks
from toolkit.why.probe import probe
from toolkit.why.remedies import suggestions, weighed
from toolkit.why.subject import open_subject
from toolkit.why.trials import Bench, agreement


@pytest.fixture(scope="module")
def found(odd: Path) -> Why:
    return why(odd)


def test_every_layer_is_told_under_its_module_name(found: Why) -> None:
    names = [layer.name for layer in found.layers]
    assert [name for name in names if name.startswith("layer1.0")] == ["layer1.0.conv1", "layer1.0.conv2", "layer1.0.add"]
    assert len(names) == 30
    assert {layer.precision for layer in found.layers} == {"int8"}
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert sum(layer.work for layer in found.layers) == pytest.approx(1)


def test_the_sick_layer_comes_first_and_its_cause_is_named(found: Why) -> None:
    worst = found.ranked[0]
    assert worst.name == f"{SICK}.conv2"  # a row of its weights spans four decades, and has one scale
    assert worst.share > 0.5
    assert worst.cause == "weights"
    assert worst.weights + worst.clipping + worst.rounding == pytest.approx(1)


def test_noise_born_and_noise_inherited_are_apart(found: Why) -> None:
    layers = {layer.name: layer for layer in found.layers}
    assert layers["conv1"].inherited is None  # nothing before it loses anything
    sick, after = layers[f"{SICK}.conv2"], layers[f"{SICK}.add"]
    assert sick.born is not None
    assert sick.inherited is not None
    assert after.born is not None
    assert after.inherited is not None
    assert sick.born < sick.inherited  # it makes its own
    assert after.inherited < after.born  # the sum hands it on
    for layer in found.layers:
        parts = [10 ** (-ratio / 10) for ratio in (layer.born, layer.inherited) if ratio is not None]
        assert layer.snr is not None
        assert 10 ** (-layer.snr / 10) == pytest.approx(sum(parts), rel=0.5)  # the two are nearly independent


def test_what_layers_cost_alone_sums_to_what_they_cost_together(found: Why) -> None:
    alone = sum(10 ** (-layer.alone / 10) for layer in found.layers if layer.alone is not None)
    assert -10 * np.log10(alone) == pytest.approx(found.emulated, abs=4)
    assert found.snr == pytest.approx(found.emulated, abs=2)


def test_worst_channels_and_images_are_named(found: Why) -> None:
    worst = found.ranked[0]
    assert len(worst.channels) == len(worst.images) == 5
    assert all(0 < channel.share < 1 and int(channel.name) < 64 for channel in worst.channels)
    assert found.worst_images[0].name.startswith("number ")
    ratios = [image.snr for image in found.worst_images]
    assert ratios == sorted(ratios, key=lambda ratio: ratio or 0)


def test_the_first_remedy_is_as_good_as_it_says(found: Why, tmp_path: Path) -> None:
    """The recipe it writes is built from nothing, and answers the images that the remedy was proven on."""
    file = tmp_path / "remedy.toml"
    file.write_text(remedied(found, tmp_path))
    recipe = Recipe.load(file)
    best = found.remedies[0]
    assert best.gain > 6
    assert recipe.name == "odd-why"
    assert recipe.notes[-1].startswith(f"toolkit why: {best.what}")
    trip = pipeline.prepare(recipe, proof=False)
    judged = hold_back(recipe).judging
    assert judged is not None
    images = np.concatenate(list(judged.batches(48)))[:32]
    answers = graph_runner(pipeline.typed(trip, Target("cpu")))(images)
    truth = graph_runner(trip.source.graph)(images)
    assert found.proof_images == len(images)
    assert snr(truth, answers) == pytest.approx(best.snr[1], abs=1)


def test_remedies_are_checked_on_images_that_gave_no_ranges(tmp_path: Path) -> None:
    """Those of a folder that calibration takes whole: ranges by min-max clip nothing of any of them but the ones held back."""
    np.save(tmp_path / "images.npy", pictures(64))
    engine = build(tmp_path, "whole", "int8 = true", "packaged:fashion-resnet18", data=str(tmp_path / "images.npy"))
    held = hold_back(Engine.open(engine).recipe)
    assert held.whole is not None and held.judging is not None
    subject = open_subject(engine, None, quiet)
    np.testing.assert_array_equal(subject.proof, np.concatenate(list(held.judging.batches(8))))
    np.testing.assert_array_equal(np.concatenate(subject.images), np.concatenate(list(held.whole.batches(8)))[:16])


def test_a_network_that_ends_in_softmax_is_judged_by_what_that_reads(tmp_path: Path) -> None:
    """Probabilities of images that it is sure of tell nothing; one of which it is not would decide alone."""
    graph = fashion_graph("resnet18")
    logits = graph.graph.outputs[0]
    graph.graph.append(ir.node("Softmax", [logits], outputs=[ir.Value(name="p", shape=logits.shape, type=logits.type)], name="p"))
    graph.graph.outputs[0] = graph.graph[-1].outputs[0]
    (tmp_path / "soft.onnx").write_bytes(serialize(graph))
    np.save(tmp_path / "images.npy", pictures(64))
    text = RECIPE.replace('arch = "resnet18"\nweights = "{weights}"', f'onnx = "{tmp_path / "soft.onnx"}"')
    recipe = Recipe.parse(text.format(name="soft", precision="int8 = true", data=tmp_path / "images.npy"))
    pipeline.build(pipeline.prepare(recipe, proof=False), Target("cpu"), tmp_path / "soft")
    found = why(tmp_path / "soft", remedies=False)
    assert found.softmax and "p" not in [layer.name for layer in found.layers]
    assert headline(found).startswith("soft (int8, cpu): its probabilities have an SNR of ")
    subject = open_subject(tmp_path / "soft", None, quiet)
    assert subject.trip is not None
    truth, answers = (graph_runner(before_softmax(one))(subject.proof) for one in (graph, subject.engine.graph))
    wanted = snr(centered(truth, True), centered(answers, True))
    assert Bench(subject, subject.trip).before[0] == pytest.approx(wanted, abs=0.05)
    assert abs(wanted - snr(*(graph_runner(one)(subject.proof) for one in (graph, subject.engine.graph)))) > 1


def test_a_network_may_end_in_an_operator_that_only_moves_values() -> None:
    """SqueezeNet's pool is the last that computes, and its Flatten the last of the graph."""
    text = TEXT.replace("f = Flatten (m)\n", "").replace("END", "y = Flatten (m)").replace("float[N, 5] y", "float[N, 4] y")
    random = np.random.default_rng(0)
    shapes = {"w1": (4, 2, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 4, 1, 1), "b1": (4,)}
    plain = network(text, {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    images = [random.normal(size=(1, 2, 6, 6)).astype(np.float32) for _ in range(2)]
    ranges = collect(plain, images, watched(plain), threads=1)
    typed = quantize(plain, ranges, Precision(int8=True), Calibration(method="minmax"), scheme="cpu")
    layers = blocks(plain, typed)
    noise, signal = alone(plain, layers, images)
    assert layers[-1].kind == "Flatten" and layers[-1].output == "y"
    powers = probe(plain, typed, layers, images)
    answer = graph_runner(plain, 1)(np.concatenate(images)).astype(np.float64)
    np.testing.assert_allclose(powers[layers[-1].name]["signal"].sum(axis=1), (answer**2).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(signal, (answer**2).sum(axis=1), rtol=1e-5)
    assert sum(float(row.sum()) for row in noise.values()) > 0


def test_what_a_layer_costs_is_known_behind_a_flatten_too() -> None:
    """Shape inference gives its rows a name of their own, as if they were not those of the images."""
    plain = tiny()
    for name, columns in (("f", 4), ("y", 5)):
        next(value for node in plain.graph for value in node.outputs if value.name == name).shape = ir.Shape(["unk__0", columns])
    images = [HELD[:1], HELD[1:2]]
    ranges = collect(plain, images, watched(plain), threads=1)
    typed = quantize(plain, ranges, Precision(int8=True), Calibration(method="minmax"), scheme="cpu")
    assert "node_y" in alone(plain, blocks(plain, typed), images)[0]


def test_what_auto_has_chosen_for_the_whole_network_is_not_chosen_again_on_fewer_images(odd: Path) -> None:
    recipe = Engine.open(odd).recipe
    notes = ("auto: method = minmax, 39.9 dB (mse 29.3)", "auto: rounding = nearest, 39.9 dB (compensated 39.0)")
    assert weighed(notes) == ("method",) and weighed(("auto: methods = mse for x .. y",)) == ()
    recipe = msgspec.structs.replace(recipe, precision=msgspec.structs.replace(recipe.precision, equalize="streams"))
    tried = [[change.what for change in suggestions(recipe, (), settled)] for settled in ((), ("method",), ("equalize",))]
    methods = ['method = "mse"', 'method = "entropy"', 'method = "percentile"']
    assert tried == [[*methods, 'equalize = "none"'], ['equalize = "none"'], methods]


def test_remedies_stand_by_what_they_bring(found: Why) -> None:
    values = [remedy.value for remedy in found.remedies]
    assert values == sorted(values, reverse=True)
    assert all(remedy.gain >= 0.3 for remedy in found.remedies)
    kept = [remedy for remedy in (*found.remedies, *found.tried) if remedy.recipe.precision.keep]
    assert all(remedy.time is not None and remedy.measured for remedy in kept)
    assert any(f"{SICK}.conv2" in remedy.recipe.precision.keep for remedy in kept)


def test_the_page_stands_alone(found: Why) -> None:
    page = why_page(found)
    assert page.count("<script") == 1, "the page's own, which its policy names by its hash"
    assert not re.search(r'(?:src|href)="http', page)
    boxes = re.findall(r"<title>([^<]+ \(\w+, int8\): [^<]+)</title>", page)
    assert len(boxes) == len(found.layers)
    assert any(text.startswith(f"{SICK}.conv2 (Conv, int8): ") and "mostly weights" in text for text in boxes)
    assert found.remedies[0].why in page
    assert "prefers-color-scheme: dark" in page


def test_the_same_engine_gives_the_same_losses(found: Why, odd: Path) -> None:
    again = why(odd, remedies=False)
    assert [layer.share for layer in again.layers] == [layer.share for layer in found.layers]
    assert again.remedies == ()
    with pytest.raises(BudgetError, match=r"nothing to write: no remedy could be tried"):
        remedied(again, odd)


def test_half_precision_is_looked_into_as_a_gpu_rounds_it(half: Path) -> None:
    found = why(half, remedies=False)
    assert {layer.precision for layer in found.layers} == {"fp16"}
    assert 50 < found.emulated < 80
    assert all(layer.clipping == 0 for layer in found.layers)
    assert found.layers[0].weights > 0.1
    assert found.layers[0].rounding > 0.1
    assert any("computes FP16 in FP32" in note for note in found.notes)


def test_an_overflow_is_called_one() -> None:
    """A result above 65504 in the network itself: the layer is named, and what reads it is seen to inherit."""
    graph = fashion_graph("resnet18")
    node = next(node for node in graph.graph if node.name == "layer2.0.conv1")
    for index in (1, 2):
        value, array = node.inputs[index], constant(node.inputs[index])
        assert value is not None
        assert array is not None
        value.const_value = ir.tensor(array * np.float32(3e4), name=value.name)
    typed = as_rounded(to_fp16(graph))
    parts = blocks(graph, typed)
    powers = probe(graph, typed, parts, [pictures(1)])
    zeros = {block.name: np.zeros(1) for block in parts}
    layers = {layer.name: layer for layer in losses(graph, parts, powers, zeros, np.ones(1), {}, str)}
    sick = layers["layer2.0.conv1"]
    assert sick.cause == "overflow"
    assert sick.peak > 65504
    assert sick.born == -120
    assert layers["layer2.0.conv2"].inherited == -120
    assert layers["layer1.1.add"].snr is not None
    assert layers["layer1.1.add"].snr > 50


def test_an_engine_whose_reference_is_gone_is_looked_into_by_what_it_carries(odd: Path, odd_weights: Path) -> None:
    away = odd_weights.with_suffix(".away")
    odd_weights.rename(away)
    try:
        found = why(odd)
    finally:
        away.rename(odd_weights)
    assert found.remedies == found.tried == ()
    assert "the FP32 network behind the engine is not here" in found.notes[0]
    assert found.ranked[0].name == f"{SICK}.conv2"
    assert all(layer.weights < 1e-6 for layer in found.layers)  # rounding weights cannot be seen


def test_an_engine_whose_settings_were_chosen_by_measurement_finds_its_network_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The build held images back to choose by, and equalized on the others: only on these does the graph come out again."""
    folder = build(tmp_path_factory.mktemp("engines"), "chosen", "int8 = true", "packaged:fashion-resnet18")
    found = why(folder, remedies=False)
    assert not any("is not here" in note for note in found.notes)
    assert max(layer.weights for layer in found.layers) > 0.1


def test_bad_input_is_a_clear_line(odd: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(EngineError, match="is not an engine"):
        why(tmp_path)
    with pytest.raises(DataError, match=r"the images of odd are not here.+does not exist.+Name others: --data DIR"):
        why(odd, data=str(tmp_path / "nowhere"))
    full = build(tmp_path_factory.mktemp("engines"), "full", "", "packaged:fashion-resnet18")
    with pytest.raises(EngineError, match=r"computes in FP32.+no layer loses anything.+Ask why of an INT8 or FP16 engine"):
        why(full)


def test_json_and_table_tell_the_same(found: Why) -> None:
    plain = json.loads(msgspec.json.encode(found))
    assert [layer["name"] for layer in plain["layers"]] == [layer.name for layer in found.layers]
    console = Console(width=120, record=True)
    console.print(why_table(found))
    text = console.export_text()
    assert f"{found.snr:.1f} dB" in text
    assert f"1. {found.remedies[0].what[:40]}" in text


def test_answers_agree_as_their_columns_mean_it() -> None:
    """A binary network has one column: its largest is always the first, whatever it answers."""
    truth, answers = np.array([[1.0], [-1.0], [2.0], [-2.0]], np.float32), np.array([[1.0], [1.0], [1.0], [-1.0]], np.float32)
    assert agreement(truth, answers, Outputs(are="binary-logit")) == 0.75
    labels = np.array([[3.0, 1.0], [3.0, -1.0]], np.float32)
    assert agreement(labels, labels * [1, -1], Outputs(are="multilabel-logits")) == 0.0
    assert agreement(labels, labels * [1, -1], Outputs()) == 1.0
    assert agreement(labels, labels * [1, np.nan], Outputs()) == 0.0
