"""How settings are chosen, on a network of some nodes: each step is done again by hand, from the same candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.test_qdq_values import network
from toolkit.calibration import Ranges, collect
from toolkit.graph import select as room
from toolkit.graph.equalize import equalize
from toolkit.graph.gain import gain_of
from toolkit.graph.qdq import quantize
from toolkit.graph.rounded import Roundings
from toolkit.graph.run import graph_runner
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.select import FAR, LEAST, OF, OTHERS, PRICE, SIMPLE, START, SURE, WORTH, Selected, Settings, select
from toolkit.graph.softmax import centered
from toolkit.recipe import Calibration, Precision
from toolkit.types import Array

TEXT = """<ir_version: 9, opset_import: ["" : 18]>
net (float[N, 2, 6, 6] x) => (float[N, 5] y)
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (r, w2, b1)
    s = Add (c, r)
    t = Relu (s)
    d = Conv (t, w3, b1)
    m = GlobalAveragePool (d)
    f = Flatten (m)
    END
}
"""
PLAIN, SOFT = "y = Gemm <transB = 1> (f, w4, b4)", "z = Gemm <transB = 1> (f, w4, b4)\n y = Softmax (z)"
RNG = np.random.default_rng(11)
IMAGES = RNG.normal(size=(28, 2, 6, 6)).astype(np.float32)
HELD = RNG.normal(size=(12, 2, 6, 6)).astype(np.float32)


def tiny(end: str = PLAIN, spread: float = 2.0) -> ir.Model:
    random = np.random.default_rng(3)
    shapes = {"w1": (4, 2, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 4, 1, 1), "w4": (5, 4), "b1": (4,), "b4": (5,)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["w1"] = arrays["w1"] * (10 ** np.linspace(0, spread, 4, dtype=np.float32)).reshape(4, 1, 1, 1)
    return network(TEXT.replace("END", end), arrays)


def ranges_of(graph: ir.Model, whole: bool) -> Ranges:
    return collect(graph, [IMAGES if whole else IMAGES[:8]], watched(graph), threads=1)


def outlying(graph: ir.Model, whole: bool) -> Ranges:
    """Of images among which one is six times as large; mean squared error weighs the others alone, as it does among many."""
    rare = collect(graph, [IMAGES, 6 * IMAGES[:1]], watched(graph), threads=1)
    plain = ranges_of(graph, True).tensors
    found = {}
    for name, one in rare.tensors.items():
        clipped = {key: value for key, value in plain[name].thresholds.items() if key.startswith("mse")}
        found[name] = msgspec.structs.replace(one, thresholds={**one.thresholds, **clipped})
    return msgspec.structs.replace(rare, tensors=found)


def images() -> list[Array]:
    return [IMAGES[i : i + 1] for i in range(len(IMAGES))]


def choose(graph: ir.Model, settings: Settings, **more: Any) -> Selected:
    held, ranges = more.pop("held", HELD), more.pop("ranges", ranges_of)
    return select(graph, settings, images(), held, ranges, scheme="cpu", room="full", **more)


def settings(**given: Any) -> Settings:
    """All set, but for what is `auto`."""
    return Settings(Precision(int8=True), Calibration()).having(**{**SIMPLE, **given})


def noise(graph: ir.Model, one: Settings, truth: Array, soft: bool = False) -> Array:
    """The squared error of each held image's logits, over those of the network as they are."""
    found = quantize(graph, ranges_of(graph, True), one.precision, one.calibration, scheme="cpu", room="full",
                     rounded=Roundings(lambda pixels: images()).of(graph, one.precision, "full"))  # fmt: skip
    answers = graph_runner(found, 1)(HELD).astype(np.float64)
    return ((answers - truth) ** 2).sum(axis=1)


def best_of(names: Sequence[str], noises: Sequence[Array]) -> str:
    """The first, unless another is by more than its own error and 0.2 dB better, or by 4.9 dB, as these are 12 images."""
    best, least = names[0], noises[0]
    for name, one in zip(names[1:], noises[1:], strict=True):
        gain, error = gain_of(least, one)
        if gain > max(PRICE.get(name, WORTH), min(SURE * error, 4.9)):
            best, least = name, one
    return best


def decibels(truth: Array, one: Array) -> float:
    return float(10 * np.log10((truth**2).sum() / one.sum()))


def test_the_method_is_the_first_that_no_other_is_surely_better_than() -> None:
    graph = equalize(tiny(), "none")
    truth = graph_runner(tiny(), 1)(HELD).astype(np.float64)
    names = ("mse", *OTHERS["method"])
    noises = [noise(graph, settings(equalize="none", method=name), truth) for name in names]
    best = best_of(names, noises)
    found = choose(tiny(), settings(equalize="none", method="auto"))
    assert found.settings.calibration.method == best
    (line, *parts, last) = found.reasons
    assert line.startswith(f"auto: method = {best}, {decibels(truth, noises[names.index(best)]):.1f} dB (")
    for name, one in zip(names, noises, strict=True):
        assert name == best or f"{name} {decibels(truth, one):.1f}" in line
    assert all(part.startswith("auto: methods = ") for part in parts)
    assert last.endswith("on 12 calibration images held back for the choice")


def test_a_method_that_ruins_one_image_is_left_though_one_image_makes_nothing_sure() -> None:
    """The noise that one image holds nearly all of: its standard error is as large as any gain."""
    held = HELD.copy()
    held[4] *= 6
    free = settings(equalize="none", method="auto", rounding="nearest")
    found = choose(tiny(), free, held=held, ranges=outlying)
    assert found.settings.calibration.method == "minmax"
    line = found.reasons[0]
    assert line.startswith("auto: method = minmax, ") and line.endswith(": few images make the difference)")
    without = np.delete(held, 4, axis=0)
    assert choose(tiny(), free, held=without, ranges=outlying).settings.calibration.method == "mse"


@pytest.mark.parametrize(("images", "far"), [(LEAST, 8.49), (8, 6.0), (16, 4.25), (32, 3.0)])
def test_no_choice_is_further_below_the_best_that_was_seen_than_its_images_excuse(images: int, far: float) -> None:
    """Whatever the noise is like: here a few images hold nearly all of it."""
    held = np.resize(HELD, (images, 2, 6, 6))
    one = room._Selection(tiny(), settings(method="auto"), [], held, ranges_of, "cpu", "full",
                          room.lane_runner, Roundings(lambda pixels: []))  # fmt: skip
    random = np.random.default_rng(images)
    behind = []
    for _ in range(300):
        noises = 10 ** (random.normal(size=(4, 1)) * 0.5 + random.standard_t(2, size=(4, images)))
        tried = [room._Candidate(name, settings(), noise) for name, noise in zip("abcd", noises, strict=True)]
        behind.append(10 * np.log10(one._better("method", tried).noise.sum() / noises.sum(axis=1).min()))
    assert far - 1 < max(behind) <= far + 0.01
    assert (FAR, OF) == (3.0, 32)


@pytest.mark.parametrize(("key", "first", "second"), [("rounding", "compensated", "nearest"), ("bias_correction", True, False)])
def test_a_change_is_taken_where_it_is_surely_better(key: str, first: Any, second: Any) -> None:
    graph = equalize(tiny(), "none")
    truth = graph_runner(tiny(), 1)(HELD).astype(np.float64)
    kept, other = (noise(graph, settings(equalize="none", **{key: value}), truth) for value in (first, second))
    best = first if best_of(("first", "second"), (kept, other)) == "first" else second
    unset = None if key == "bias_correction" else "auto"
    found = choose(tiny(), settings(equalize="none", **{key: unset}))
    assert getattr(found.settings.precision, key) == best
    (line, last) = found.reasons
    mine, others = (kept, other) if best == first else (other, kept)
    there = second if best == first else first
    doubt = ": not clearly better" if others.sum() < mine.sum() and f"{decibels(truth, others):.1f}" and best == first else ""
    assert line == f"auto: {key} = {best}, {decibels(truth, mine):.1f} dB ({there} {decibels(truth, others):.1f}{doubt})"
    assert last == f"auto: SNR of the logits {decibels(truth, mine):.1f} dB on 12 calibration images held back for the choice"
    assert found.settings == settings(equalize="none", **{key: best})


def spread() -> ir.Model:
    """The channels of the stream over three decades, and what reads them spread inversely: the same function."""
    random, by = np.random.default_rng(3), 10 ** np.linspace(0, 3, 4, dtype=np.float32).reshape(4, 1, 1, 1)
    w1, w2, w3 = (random.normal(size=shape).astype(np.float32) for shape in ((4, 2, 3, 3), (4, 4, 3, 3), (4, 4, 1, 1)))
    b1, b3, w4, b4 = (random.normal(size=shape).astype(np.float32) for shape in ((4,), (4,), (5, 4), (5,)))
    arrays = {"w1": w1 * by, "b1": b1 * by.ravel(), "w2": w2 * by / by.reshape(1, 4, 1, 1), "w3": w3 / by.reshape(1, 4, 1, 1)}
    text = TEXT.replace("END", PLAIN).replace("(t, w3, b1)", "(t, w3, b3)")
    return network(text, {**arrays, "b3": b3, "w4": w4, "b4": b4})


def test_channels_that_were_spread_are_equalized_and_the_graph_is_that_one() -> None:
    found = choose(spread(), settings(equalize="auto"))
    assert found.settings.precision.equalize == "streams"
    assert found.reasons[0].startswith("auto: equalize = streams, ")
    assert "none" in found.reasons[0] and "pairs" in found.reasons[0] and "activations" not in found.reasons[0]
    wanted = equalize(spread(), "streams", images())
    batch = HELD[:2]
    np.testing.assert_allclose(graph_runner(found.graph, 1)(batch), graph_runner(wanted, 1)(batch), rtol=1e-5, atol=1e-5)
    assert found.ranges.tensors == ranges_of(found.graph, True).tensors


def test_scales_that_serve_channels_of_no_weight_are_not_taken_for_one_image() -> None:
    """Here a channel of a thousandth counts for a thousandth: equalization spends steps on it that the others would need.
    On 400 images that costs 5.4 dB, with a standard error of 0.5; on these 12 one image makes it, and nothing is sure."""
    assert choose(tiny(spread=3.0), settings(equalize="auto")).settings.precision.equalize == "none"


def test_a_network_without_a_sum_has_no_streams_to_try() -> None:
    text = TEXT.replace("s = Add (c, r)", "s = Identity (c)")
    random = np.random.default_rng(3)
    shapes = {"w1": (4, 2, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 4, 1, 1), "w4": (5, 4), "b1": (4,), "b4": (5,)}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found = choose(network(text.replace("END", PLAIN), arrays), settings(equalize="auto"))
    assert "pairs" not in found.reasons[0]
    assert "none" in found.reasons[0] and "streams" in found.reasons[0]


def test_logits_before_a_softmax_are_compared_without_their_mean() -> None:
    """A number that is added to all logits of an image changes no probability."""
    soft, plain = choose(tiny(SOFT), settings(method="auto")), choose(tiny(), settings(method="auto"))
    assert soft.reasons != plain.reasons
    rows = np.array([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]], np.float32)
    assert centered(rows, True).tolist() == [[-2, -1, 3], [0, 0, 0]]
    assert centered(rows, False).tolist() == rows.tolist()
    assert centered(rows.reshape(2, 3, 1, 1), False).dtype == np.float64
    assert centered(rows.reshape(2, 3, 1, 1), False).shape == (2, 3)


def test_parts_of_the_network_may_have_a_method_of_their_own() -> None:
    """Of eight tensors four parts of two are tried, in graph order; the other method is min-max, or for min-max mse."""
    graph = equalize(tiny(), "none")
    for method, other in (("mse", "minmax"), ("minmax", "mse"), ("entropy", "minmax")):
        one = room._Selection(tiny(), settings(equalize="none", method="auto"), images(), HELD, ranges_of, "cpu", "full",
                              room.lane_runner, Roundings(lambda pixels: images()))  # fmt: skip
        candidate = room._Candidate("x", settings(method=method), np.ones(12))
        changes = one._changes(candidate, graph, ranges_of(graph, True))
        names = [name for change in changes for name in change.values]
        assert names == list(watched(graph))
        assert len(changes) == 4 and all(change.key == "methods" for change in changes)
        assert {value for change in changes for value in change.values.values()} == {other}
        first = list(changes[0].values)
        assert changes[0].name == f"{other} for {first[0]} .. {first[-1]}"
        taken = changes[1].of(changes[0].of(settings()))
        assert dict(taken.precision.methods) == {**changes[0].values, **changes[1].values}


def test_what_is_open_and_what_is_not_set() -> None:
    free = Settings(Precision(int8=True), Calibration())
    assert free.open == free.unset == ("equalize", "method", "weights", "rounding", "bias_correction")
    assert Settings(Precision(fp8=True), Calibration()).open == ("equalize",)
    assert settings().open == settings().unset == ()
    assert settings(method="auto", rounding="auto").open == ("method", "rounding")
    for made, values in ((free.simply(), SIMPLE), (free.measured(), START)):
        assert made.unset == ()
        assert {key: made.calibration.method if key == "method" else getattr(made.precision, key) for key in values} == values
    assert Settings(Precision(fp8=True), Calibration()).measured() == Settings(Precision(fp8=True), Calibration()).simply()
    kept = free.having(method="entropy", weights="mse").measured()
    assert (kept.calibration.method, kept.precision.weights, kept.precision.rounding) == ("entropy", "mse", "compensated")
    assert free.having(weights="mse").calibration == free.calibration


def test_values_are_told_as_they_stand() -> None:
    one = settings(method="mse")
    assert [one.value(key) for key in ("method", "equalize", "bias_correction", "methods")] == [
        "mse", "streams", "False", "one for all",
    ]  # fmt: skip
    assert one.having(methods={"r": "mse"}).value("methods") == "{'r': 'mse'}"


def test_weights_are_taken_from_the_first_images_alone_and_roundings_can_be_given() -> None:
    asked: list[bool] = []

    def given(pixels: bool) -> list[Array]:
        asked.append(pixels)
        return images()

    roundings = Roundings(given)
    found = choose(tiny(), settings(equalize="none", rounding="auto"), roundings=roundings)
    assert found.roundings is roundings and asked == [False]
    assert choose(tiny(), settings(equalize="none")).roundings is not roundings


def test_the_runner_that_is_given_answers_for_the_target() -> None:
    """One that answers without an error for compensated weights alone."""
    seen: list[ir.Model] = []

    def runner(graph: ir.Model) -> Any:
        seen.append(graph)
        return graph_runner(graph, 1)

    choose(tiny(), settings(equalize="none", rounding="auto"), runner=runner)
    assert len(seen) == 2
    assert all(any(node.op_type == "QuantizeLinear" for node in graph.graph) for graph in seen)


def jackknife(before: Array, after: Array) -> tuple[float, float]:
    n = len(before)
    gain = 10 * np.log10(before.sum() / after.sum())
    each = [10 * np.log10(np.delete(before, i).sum() / np.delete(after, i).sum()) for i in range(n)]
    return float(gain), float(np.sqrt((n - 1) / n * sum((one - np.mean(each)) ** 2 for one in each)))


@pytest.mark.parametrize("seed", range(6))
def test_a_gain_and_its_error_are_those_of_the_jackknife(seed: int) -> None:
    random = np.random.default_rng(seed)
    before, after = random.exponential(size=(2, 3 + seed))
    assert gain_of(before, after) == pytest.approx(jackknife(before, after))


def test_gains_at_the_ends() -> None:
    fine, none, broken = np.array([1.0, 2.0]), np.zeros(2), np.array([1.0, np.inf])
    assert gain_of(fine, none) == (np.inf, 0.0)  # no noise is left
    assert gain_of(none, fine) == (0.0, 0.0)
    assert gain_of(none, none) == (0.0, 0.0)
    assert gain_of(fine, broken) == (0.0, 0.0)
    assert gain_of(broken, fine) == (np.inf, 0.0)
    assert gain_of(broken, broken) == (0.0, 0.0)
    assert gain_of(np.array([2.0]), np.array([1.0])) == (pytest.approx(3.0103, abs=1e-4), np.inf)
    gain, error = gain_of(np.array([1.0, 0.0]), np.array([1.0, 0.0]))  # all of the noise is one image's
    assert gain == 0 and np.isfinite(error)
    swamped = np.array([3.0, 1.0, 1.0, 1e37])  # beside the last image the others' sum is rounded away, but not from the error
    for before in (np.array([2.0, 4.0, 4.0, 1e37]), np.array([20.0, 1.0, 1.0, 1.0])):
        assert gain_of(before, swamped) == pytest.approx(jackknife(before, swamped))
    assert LEAST == 4
    assert msgspec.structs.asdict(Settings(Precision(), Calibration()).calibration)["method"] == "auto"


def better(key: str, *noises: float, names: Sequence[str] = "abcd") -> tuple[str, list[str]]:
    """What is chosen among candidates whose noise is the same on every image, so that every gain is sure; and the reasons."""
    one = room._Selection(tiny(), settings(method="auto"), [], HELD, ranges_of, "cpu", "full",
                          room.lane_runner, Roundings(lambda pixels: []))  # fmt: skip
    tried = [room._Candidate(name, settings(), np.full(12, noise)) for name, noise in zip(names, noises, strict=False)]
    return one._better(key, tried).name, one.reasons


def test_the_first_stands_unless_another_gains_more_than_it_is_worth() -> None:
    """0.97 of the noise is 0.13 dB, 0.95 is 0.22 dB; what costs time is worth it from 1 dB on: 0.79 of it, not 0.81."""
    assert better("method", 1, 0.97)[0] == better("method", 1, 1.5)[0] == "a"
    assert better("method", 1, 0.95)[0] == better("method", 1, 0.5, 0.49)[0] == "b"
    assert better("method", 1, 0.95, 0.5)[0] == better("method", 1, 2, 0.9, 0.88)[0] == "c"
    assert better("method", 1, 2, 1, 0.9)[0] == "d"
    for noise, chosen in ((0.81, "none"), (0.79, "activations")):
        assert better("equalize", 1, noise, names=("none", "activations"))[0] == chosen


def test_reasons_name_all_that_was_seen_and_what_is_not_clearly_better() -> None:
    _, (kept,) = better("method", 1, 0.97, 2)
    assert kept.startswith("auto: method = a, ") and kept.count(" dB") == 1 and kept.endswith(": not clearly better)")
    assert "b " in kept and ", c " in kept
    _, (taken,) = better("method", 1, 0.5)
    assert taken.startswith("auto: method = b, ") and "(a " in taken and ":" not in taken.partition("(")[2]
    assert better("methods", 1, 0.97)[1] == [] and len(better("methods", 1, 0.5)[1]) == 1


def test_products_around_functions_are_tried_where_there_are_such() -> None:
    body = "a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) \n h = HardSwish (a) \n d = Conv (h, w3, b1) \n m = GlobalAveragePool (d)"
    text = f"{TEXT.partition('{')[0]}{{ {body} \n f = Flatten (m) \n {PLAIN} }}"
    values = {str(value.name): value.const_value.numpy() for value in tiny().graph.initializers.values() if value.const_value}
    line = choose(network(text, values), settings(equalize="auto")).reasons[0]
    assert line.startswith("auto: equalize = ") and "activations" in line and "streams" in line
