"""The scales that equalization chooses, and what they do to weights, on small arrays that can be worked out by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.networks import run
from tests.graph.test_qdq_values import network
from toolkit.graph.channels import Channels, noise
from toolkit.graph.edit import constant
from toolkit.graph.equalize import (
    PEAK,
    POWERS,
    ChannelSet,
    channel_sets,
    equalize,
    evidence,
    factors,
    is_reader,
    scale_layer,
    scaled,
)
from toolkit.types import Array

HEAD = '<ir_version: 9, opset_import: ["" : 18, "own" : 1]>\nnet (float[N, 2, 4, 4] x) => (float[N, 3] y)\n'
END = "m = GlobalAveragePool (d)\n f = Flatten (m)\n y = Gemm <transB = 1> (f, g)"


def weights(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("w1", "two"), (4, 2, 1, 1)),
        "w2": (4, 4, 1, 1),
        "w3": (4, 4, 3, 3),
        "deep": (4, 1, 1, 1),
        "b": (4,),
        "one": (1,),
        "g": (3, 4),
        "gt": (4, 3),
        "k": (1, 4, 1, 1),
        "flat": (3, 64),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def graph(body: str, arrays: dict[str, Array] | None = None) -> ir.Model:
    """`body` are its nodes, of which the last makes `d` [N, 4, H, W], or `y` itself."""
    end = "" if "y =" in body else END
    return network(f"{HEAD}{{\n{body}\n{end}\n}}", {**weights(), **(arrays or {})})


def told(body: str) -> list[str]:
    """Of each set: the writers' results, what joins them (`=` in a stream), and the readers' results."""

    def names(nodes: tuple[ir.Node, ...]) -> str:
        return ",".join(str(node.outputs[0].name) for node in nodes)

    return [f"{names(one.writers)} {'=' if one.stream else '-'} {names(one.readers)}" for one in channel_sets(graph(body))]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Conv (x, w1)\n d = Conv (a, w2)", ["a - d", "d - y"]),
        ("a = Conv (x, w1, b)\n r = Relu (a)\n d = Conv (r, w2)", ["a - d", "d - y"]),
        ("a = Conv (x, w1, one)\n d = Conv (a, w2)", ["d - y"]),  # one bias for all channels cannot take a scale a channel
        ("a = Conv (x, w1)\n r = LeakyRelu (a)\n d = Conv (r, w2)", ["a - d", "d - y"]),
        ("a = Conv (x, w1)\n r = MaxPool <kernel_shape = [2, 2]> (a)\n d = Conv (r, w2)", ["a - d", "d - y"]),
        ("a = Conv (x, w1)\n r = Sigmoid (a)\n d = Conv (r, w2)", ["d - y"]),
        ("a = Conv (x, w1)\n r = own.Relu (a)\n d = Conv (r, w2)", []),  # nobody knows the shapes behind it
        ("a = Conv (x, w1)\n c = Conv (a, w2)\n r = Add (a, c)\n d = Conv (r, w3)", ["a,c = c,d", "d - y"]),
        ("a = Conv (x, w1)\n c = Conv (a, w2)\n r = Sum (a, c)\n d = Conv (r, w3)", ["a,c = c,d", "d - y"]),
        ("a = Conv (x, w1)\n c = Conv (x, w1)\n r = Mul (a, c)\n d = Conv (r, w3)", ["d - y"]),
        ("a = Conv (x, w1)\n r = Add (a, k)\n d = Conv (r, w2)", ["d - y"]),  # of another shape
        ("a = Conv (x, w1)\n d = Conv (a, a2)", []),  # with a weight that is computed
        ("a = Conv (x, w1)\n d = Conv <group = 2> (a, two)", ["a - d", "d - y"]),
        ("a = Conv (x, w1)\n d = Conv <group = 4> (a, deep)", ["a - d", "d - y"]),
        ("a = Conv (x, w1)\n d = Relu (a)\n s = Sigmoid (d)\n m2 = ReduceMean (s)\n", ["a - y"]),
    ],
)
def test_sets_are_of_what_a_scale_passes_through(body: str, expected: list[str]) -> None:
    if "a2" in body:
        body = body.replace("d = Conv (a, a2)", "e = Identity (w2)\n a2 = Relu (e)\n d = Conv (a, a2)")
    assert told(body) == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("f = Flatten (a)\n y = Gemm <transB = 1> (f, flat)", ["a - y"]),
        ("f = Flatten <axis = 2> (a)\n z = MatMul (f, sixteen)\n y = Reshape (z, last)", []),
        ("f = Reshape (a, rows)\n y = Gemm <transB = 1> (f, flat)", ["a - y"]),
        ("t = GlobalAveragePool (a)\n f = Reshape (t, rows)\n y = Gemm (f, gt)", ["a - y"]),
        ("t = GlobalAveragePool (a)\n f = Flatten (t)\n y = MatMul (f, gt)", ["a - y"]),
        ("t = GlobalAveragePool (a)\n f = Flatten (t)\n y = Gemm <transB = 1> (f, g)", ["a - y"]),
        # what a MatMul gives has no bias that could take the scale as well
        ("t = GlobalAveragePool (a)\n f = Flatten (t)\n h = MatMul (f, square)\n y = MatMul (h, gt)", ["a - h"]),
        ("t = GlobalAveragePool (a)\n f = Flatten (t)\n h = Gemm (f, square)\n y = MatMul (h, gt)", ["a - h", "h - y"]),
    ],
)
def test_what_a_classifier_reads_is_a_set_as_well(end: str, expected: list[str]) -> None:
    more = {
        "rows": np.array([0, -1], np.int64),
        "last": np.array([-1, 3], np.int64),
        "sixteen": np.ones((16, 3), np.float32),
        "square": np.ones((4, 4), np.float32),
    }
    made = graph(f"a = Conv (x, w1)\n {end}", more)
    found = channel_sets(made)
    assert [f"{one.writers[0].outputs[0].name} - {one.readers[0].outputs[0].name}" for one in found] == expected
    for one in found:
        assert (one.channels, one.stream) == (4, False)
        assert one.tensors[0] == one.writers[0].outputs[0].name


def test_a_set_that_reaches_an_end_or_two_operands_of_one_node_is_none() -> None:
    assert told("a = Conv (x, w1)\n d = Conv (a, w2)")[-1] == "d - y"  # y, an output, is none
    assert told("a = Conv (x, w1)\n s = Sub (a, a)\n d = Conv (s, w2)") == ["d - y"]


def layer(op: str, array: Array, bias: Array | None = None, **attributes: Any) -> ir.Node:
    """One node with constant operands, in a graph."""
    names = [("x", None), ("w", array), *([("b", bias)] if bias is not None else [])]
    values = [ir.Value(name=name, const_value=None if one is None else ir.tensor(one, name=name)) for name, one in names]
    node = ir.node(op, values, attributes)
    made = ir.Graph([values[0]], node.outputs, nodes=[node], initializers=values[1:], opset_imports={"": 18}, name="g")
    assert node.graph is made
    return node


def arrays_of(node: ir.Node) -> list[Array]:
    return [array for value in node.inputs[1:] if (array := constant(value)) is not None]


RNG = np.random.default_rng(5)
ROWS, COLUMNS = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 0.5, 0.25, 8.0])


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "rows", "columns"),
    [
        ("Conv", (4, 4, 3, 3), {}, (4, 1, 1, 1), (1, 4, 1, 1)),
        ("Gemm", (4, 4), {"transB": 1}, (4, 1), (1, 4)),
        ("Gemm", (4, 4), {}, (1, 4), (4, 1)),
        ("MatMul", (4, 4), {}, (1, 4), (4, 1)),
    ],
)
def test_rows_are_multiplied_and_columns_divided(
    op: str, shape: tuple[int, ...], attributes: dict[str, int], rows: tuple[int, ...], columns: tuple[int, ...]
) -> None:
    weight, bias = RNG.normal(size=shape).astype(np.float32), RNG.normal(size=4).astype(np.float32)
    given = None if op == "MatMul" else bias
    for by_row, by_column in itertools.product((ROWS, None), (COLUMNS, None)):
        node = layer(op, weight, given, **attributes)
        scale_layer(node, by_row, by_column)
        wanted = weight * (1 if by_row is None else by_row.reshape(rows))
        wanted = wanted / (1 if by_column is None else by_column.reshape(columns))
        found, *rest = arrays_of(node)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert found.dtype == np.float32
        assert node.inputs[1] is not None and node.inputs[1].name == "w"
        if rest:
            np.testing.assert_allclose(rest[0], bias * (1 if by_row is None else by_row), rtol=1e-6)


def test_a_grouped_convolution_reads_its_groups_channels_and_a_flattened_picture_each_channel_often() -> None:
    weight = RNG.normal(size=(4, 2, 1, 1)).astype(np.float32)
    node = layer("Conv", weight, group=2)
    scale_layer(node, None, COLUMNS)
    by_group = np.array([[1.0, 0.5]] * 2 + [[0.25, 8.0]] * 2)[:, :, None, None]
    np.testing.assert_allclose(arrays_of(node)[0], weight / by_group, rtol=1e-6)
    flat = RNG.normal(size=(3, 8)).astype(np.float32)
    node = layer("Gemm", flat, transB=1)
    scale_layer(node, None, COLUMNS)
    np.testing.assert_allclose(arrays_of(node)[0], flat / np.repeat(COLUMNS, 2), rtol=1e-6)


def test_a_constant_that_others_read_stays_theirs() -> None:
    made = graph("a = Conv (x, w1)\n c = Conv (a, w2)\n d = Conv (c, w2)")
    first, second = (node for node in made.graph if node.outputs[0].name in ("c", "d"))
    scale_layer(first, ROWS, None)
    assert constant(second.inputs[1]) is not None
    np.testing.assert_array_equal(constant(second.inputs[1]), weights()["w2"])
    np.testing.assert_allclose(arrays_of(first)[0], weights()["w2"] * ROWS.reshape(4, 1, 1, 1), rtol=1e-6)
    assert first.inputs[1] is not second.inputs[1]
    assert first.inputs[1] is not None and (first.inputs[1].name or "").startswith("w2")


def set_of(*readers: ir.Node) -> ChannelSet:
    return ChannelSet(4, ("x",), (), readers, False)


def by_formula(readers: list[Array], seen: Channels) -> Array:
    """The scale of least noise, by the two terms of the module's docstring, row by row; weights [o, C]."""
    column = np.zeros(4)
    for weight in readers:
        for row in weight:
            signal = (row**2 * seen.power).sum()
            column = np.maximum(column, np.abs(row) / np.sqrt(signal))
    share = seen.peak * column / (seen.peak * column).max()
    share = np.maximum(share, 1 / 256)

    def noise(s: Array) -> float:
        total = 0.0
        for weight in readers:
            rows = []
            for row in weight:
                step = (seen.peak * s).max() / 255
                fine = (np.abs(row) / s).max() / 127
                first = step**2 * ((row / s) ** 2).sum()
                second = fine**2 * ((row != 0) * seen.power * s**2).sum()
                rows.append((first + second) / (row**2 * seen.power).sum())
            total += float(np.mean(rows))
        return total

    best = min((share**power / seen.peak for power in POWERS), key=noise)
    return np.asarray(best * PEAK / (seen.peak * best).max())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("count", [1, 2])
def test_the_scales_are_those_of_least_noise(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(5, 4)) * 10 ** rng.uniform(-1.5, 1.5, (1, 4)) for _ in range(count)]
    for weight in weights:
        weight[rng.random((5, 4)) < 0.2] = 0
        weight[:, 0] += 0.1
    weights = [weight.astype(np.float32).astype(np.float64) for weight in weights]
    peak = 10 ** rng.uniform(-2, 2, 4)
    seen = Channels(peak, (peak * rng.uniform(0.1, 0.6, 4)) ** 2, np.zeros(4))
    group = set_of(*(layer("Conv", weight.astype(np.float32)[:, :, None, None]) for weight in weights))
    found = factors(group, {"x": seen})
    np.testing.assert_allclose(found, by_formula(weights, seen), rtol=1e-9)
    assert (seen.peak * found).max() == pytest.approx(PEAK)


def test_the_scales_that_channels_came_with_do_not_show() -> None:
    """Twice as large, and read by weights half as large: the same tensor in the end."""
    rng = np.random.default_rng(1)
    weight, peak = rng.normal(size=(6, 4)).astype(np.float32), np.array([1.0, 2.0, 3.0, 4.0])
    spread = 2.0 ** np.array([0, -7, 3, 9])
    plain = factors(set_of(layer("Conv", weight[:, :, None, None])), {"x": Channels(peak, peak**2 / 4, peak)})
    there = (weight / spread).astype(np.float32)
    moved = factors(
        set_of(layer("Conv", there[:, :, None, None])), {"x": Channels(peak * spread, (peak * spread) ** 2 / 4, peak)}
    )
    np.testing.assert_allclose(moved * spread, plain, rtol=1e-6)


def test_channels_that_are_silent_or_unread() -> None:
    weight = np.array([[1.0, 2.0, 0.0, 1.0], [2.0, 1.0, 0.0, 1.0]], np.float32)[:, :, None, None]
    peak = np.array([2.0, 4.0, 8.0, 0.0])
    found = factors(set_of(layer("Conv", weight)), {"x": Channels(peak, peak**2 / 4, peak)})
    assert np.isfinite(found).all() and (found > 0).all()
    assert (peak * found).max() == pytest.approx(PEAK)
    column = np.abs(weight[:, :, 0, 0]) / np.sqrt((weight[:, :, 0, 0] ** 2 @ (peak**2 / 4))[:, None])
    typical = np.median((peak * column.max(axis=0))[:2])
    as_if = np.array([2.0, 4.0, 8.0, typical / column.max(axis=0)[3]])
    share = np.maximum(as_if * column.max(axis=0) / (as_if * column.max(axis=0)).max(), 1 / 256)
    candidates = [share**power / as_if for power in POWERS]
    assert any(np.allclose(found, one * PEAK / (peak * one).max(), rtol=1e-9) for one in candidates)
    silent = Channels(np.zeros(4), np.zeros(4), np.zeros(4))
    np.testing.assert_array_equal(factors(set_of(layer("Conv", weight)), {"x": silent}), np.ones(4))
    unread = layer("Conv", np.zeros((2, 4, 1, 1), np.float32))
    np.testing.assert_array_equal(factors(set_of(unread), {"x": Channels(peak, peak**2, peak)}), np.ones(4))


@pytest.mark.parametrize("mode", ["pairs", "streams", "activations", "auto"])
def test_every_mode_keeps_the_function_and_pairs_leave_streams(mode: Any) -> None:
    body = "a = Conv (x, w1, b)\n c = Conv (a, w2)\n r = Add (a, c)\n q = Relu (r)\n d = Conv <pads = [1, 1, 1, 1]> (q, w3)"
    made = graph(body)
    batch = np.random.default_rng(2).normal(size=(8, 2, 4, 4)).astype(np.float32)
    seen = evidence(made, mode, [batch])
    changed = scaled(made, mode, seen)
    np.testing.assert_allclose(run(changed, batch), run(made, batch), rtol=1e-4, atol=1e-4)
    first = {node.outputs[0].name: constant(node.inputs[1]) for node in changed.graph if node.op_type == "Conv"}
    assert np.array_equal(first["a"], weights()["w1"]) == (mode == "pairs")
    assert not np.array_equal(first["d"], weights()["w3"])
    assert {name: array.tolist() for name, array in weights().items() if name == "w3"} == {"w3": weights()["w3"].tolist()}


def test_none_is_a_copy_and_needs_no_evidence() -> None:
    made = graph("a = Conv (x, w1)\n d = Conv (a, w2)")
    assert evidence(made, "none", []) == {}
    for copy in (equalize(made, "none"), scaled(made, "none", {})):
        assert copy is not made
        for one, other in zip(copy.graph, made.graph, strict=True):
            assert one is not other and [v.name for v in one.inputs if v] == [v.name for v in other.inputs if v]
    nothing = graph("q = Concat <axis = 1> (x, x)\n m = GlobalMaxPool (q)\n f = Flatten (m)\n y = MatMul (f, gt)")
    again = equalize(nothing, "streams")
    assert again is not nothing and len(again.graph) == len(nothing.graph)


def test_evidence_is_of_what_readers_read_before_it_is_flattened() -> None:
    made = graph("a = Conv (x, w1)\n r = Relu (a)\n f = Flatten (r)\n y = Gemm <transB = 1> (f, flat)")
    seen = evidence(made, "pairs", [np.ones((2, 2, 4, 4), np.float32)])
    assert set(seen) == {"r"}
    assert seen["r"].peak.shape == (4,)


def test_readers_are_layers_with_constant_weights_of_two_dimensions_or_convolutions() -> None:
    assert is_reader(layer("Conv", np.ones((4, 4, 1, 1), np.float32)))
    assert is_reader(layer("MatMul", np.ones((4, 4), np.float32)))
    assert is_reader(layer("Gemm", np.ones((4, 4), np.float32), transB=1))
    assert not is_reader(layer("Gemm", np.ones((4, 4), np.float32), transA=1))
    assert not is_reader(layer("MatMul", np.ones((2, 4, 4), np.float32)))
    assert not is_reader(layer("ConvTranspose", np.ones((4, 4, 1, 1), np.float32)))
    assert not is_reader(layer("Mul", np.ones((4, 4), np.float32)))


def test_readers_of_tensors_with_other_peaks_share_the_scale_that_suits_both() -> None:
    """The larger of the two peaks reaches PEAK."""
    first, second = (layer("Conv", np.abs(RNG.normal(size=(3, 4, 1, 1))).astype(np.float32) + 0.1) for _ in range(2))
    assert second.inputs[0] is not None
    second.inputs[0].name = "z"
    peaks = {"x": np.array([1.0, 2.0, 3.0, 4.0]), "z": np.array([8.0, 1.0, 9.0, 2.0])}
    found = factors(set_of(first, second), {name: Channels(peak, peak**2 / 9, peak) for name, peak in peaks.items()})
    assert (np.maximum(peaks["x"], peaks["z"]) * found).max() == pytest.approx(PEAK)


def test_rows_of_a_grouped_convolution_are_its_outputs() -> None:
    weight = RNG.normal(size=(4, 2, 1, 1)).astype(np.float32)
    node = layer("Conv", weight, group=2)
    scale_layer(node, ROWS, None)
    np.testing.assert_allclose(arrays_of(node)[0], weight * ROWS.reshape(4, 1, 1, 1), rtol=1e-6)


def test_a_picture_that_is_reshaped_is_seen_before_it() -> None:
    rows = {"rows": np.array([0, -1], np.int64), "all": np.array([-1, 64], np.int64)}
    made = graph("a = Conv (x, w1)\n f = Reshape (a, rows)\n y = Gemm <transB = 1> (f, flat)", rows)
    assert set(evidence(made, "pairs", [np.ones((1, 2, 4, 4), np.float32)])) == {"a"}
    other = graph("a = Conv (x, w1)\n q = Reshape (a, to)\n d = Conv (q, w2)", {"to": np.array([0, 4, 2, 8], np.int64)})
    assert [one.writers[0].outputs[0].name for one in channel_sets(other)] == ["d"]  # it is no row: another reshape ends a set


@pytest.mark.parametrize("mode", ["pairs", "streams"])
def test_the_whole_pass_measures_and_scales_and_shares_offsets_but_between_pairs(mode: Any) -> None:
    body = "a = Conv (x, w1, b)\n c = Conv (a, w2, b)\n q = Conv (a, w2, b)\n r = Add (c, q)\n d = Conv (r, w2)"
    made, batch = graph(body), np.random.default_rng(3).normal(size=(8, 2, 4, 4)).astype(np.float32)
    whole, parts = equalize(made, mode, [batch]), scaled(made, mode, evidence(made, mode, [batch]))
    blind, noisy = equalize(made, mode), equalize(made, mode, noise(made))
    for one, other in ((whole, parts), (blind, noisy)):
        for mine, theirs in zip(one.graph, other.graph, strict=True):
            for value, same in zip(mine.inputs[1:], theirs.inputs[1:], strict=True):
                np.testing.assert_array_equal(constant(value), constant(same))
    assert not np.array_equal(constant(next(iter(whole.graph)).inputs[1]), constant(next(iter(blind.graph)).inputs[1]))
    names = {value.name for node in whole.graph for value in node.inputs if value is not None}
    assert any("shared" in str(name) for name in names) == (mode == "streams")
