from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.graph.weights import quantize_weight

SHAPES = st.sampled_from([(4, 6), (3, 5), (4, 3, 3, 3), (2, 8, 1, 1), (5, 1, 3, 3)])


def weights(shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_t(2, shape) * 10 ** random.uniform(-6, 3, (shape[0],) + (1,) * (len(shape) - 1))).astype(np.float32)


def kernel_sums(quantized: np.ndarray) -> np.ndarray:
    """What vpmaddubsw makes of a row against inputs of 255 on one of each pair's sides: exact sums, before any saturation."""
    rows = quantized.astype(np.int64)
    if rows.ndim > 2:
        rows = np.moveaxis(rows, 1, -1)
    rows = rows.reshape(len(rows), -1)
    rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    return 255 * (rows[:, 0::2] + rows[:, 1::2])


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 1 << 30), st.sampled_from(["absmax", "mse"]))
def test_no_pair_can_saturate_16_bits(shape: tuple[int, ...], seed: int, scale: str) -> None:
    quantized, _ = quantize_weight(weights(shape, seed), 0, scale, "pairs")  # type: ignore[arg-type]
    sums = kernel_sums(quantized)
    assert sums.max() <= np.iinfo(np.int16).max
    assert sums.min() >= np.iinfo(np.int16).min


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 1 << 30), st.sampled_from(["full", "half", "pairs"]))
def test_absmax_cuts_nothing(shape: tuple[int, ...], seed: int, room: str) -> None:
    array = weights(shape, seed)
    quantized, scale = quantize_weight(array, 0, "absmax", room)  # type: ignore[arg-type]
    assert quantized.dtype == np.int8
    assert scale.dtype == np.float32
    error = np.abs(array - quantized * scale.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float64))
    slack = 1.01 if room == "pairs" else 0.501  # a pair of sums that rounds up past 128 gives one of them a step more
    assert (error.reshape(len(array), -1).max(axis=1) <= slack * scale).all()


def test_mse_never_errs_more_than_absmax() -> None:
    array = np.random.default_rng(3).normal(size=(8, 2048, 3, 3))  # long rows, whose few largest weights are worth cutting
    errors = []
    for method in ("absmax", "mse"):
        quantized, scale = quantize_weight(array, 0, method, "full")  # type: ignore[arg-type]
        errors.append(((array - quantized * scale[:, None, None, None]) ** 2).sum(axis=(1, 2, 3)))
    assert (errors[1] <= errors[0] * (1 + 1e-6)).all()
    assert errors[1].sum() < 0.95 * errors[0].sum()


def test_pairs_lose_less_than_half_the_range() -> None:
    array = np.random.default_rng(0).normal(size=(64, 64, 3, 3)).astype(np.float32)
    error = {}
    for room in ("full", "pairs", "half"):
        quantized, scale = quantize_weight(array, 0, "absmax", room)  # type: ignore[arg-type]
        error[room] = ((array - quantized * scale[:, None, None, None]) ** 2).mean()
    assert error["full"] <= error["pairs"] < 0.6 * error["half"]


def test_the_axis_and_the_edges() -> None:
    array = weights((6, 4), 1).T.copy()  # [inputs, outputs]
    quantized, scale = quantize_weight(array, 1)
    np.testing.assert_array_equal(quantized, quantize_weight(array.T, 0)[0].T)
    assert scale.shape == (6,)
    zeros, one = quantize_weight(np.zeros((2, 3, 1, 1), np.float32), 0, "mse", "pairs")
    assert not zeros.any()
    assert (one == 1).all()
    assert (quantize_weight(array, 1, least=np.full(6, 1e6))[1] == 1e6).all()
