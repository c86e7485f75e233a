"""Compensated rounding beside least squares: what is best for the weights still to come, solved anew for each."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.graph.compensate import BLOCK, DAMPING, PANEL, SHRINK, Covariance, blocks, compensate
from toolkit.graph.weights import PAIR, Room, limit_of
from toolkit.types import Array


def rows(count: int, groups: int, width: int, seed: int = 0) -> Array:
    """Columns that move together, each group with means of its own."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, groups, 6)) @ random.normal(size=(6, width)) + 0.3 * random.normal(
        size=(count, groups, width)
    )
    return (mixed + random.normal(size=(groups, width))).astype(np.float32)


def damped(seen: Array, group: int, columns: Array) -> Array:
    """The covariance, and on its diagonal a hundredth of its mean, and the more the fewer rows there are."""
    found = np.cov(seen[:, group, columns].astype(np.float64).T, bias=True)
    diagonal = np.diag(found)
    return np.asarray(found + np.diag(DAMPING * diagonal.mean() + diagonal * SHRINK * len(columns) / len(seen)))


@pytest.mark.parametrize("groups", [1, 3])
def test_the_covariance_is_that_of_all_rows(groups: int) -> None:
    seen, covariance = rows(200, groups, 8), Covariance(groups, 4, 2)
    for part in (seen[:3], seen[3:120], seen[120:]):
        covariance.add(part)
    assert covariance.groups == groups and len(covariance.columns) == 1
    for group in range(groups):
        np.testing.assert_allclose(covariance.of(0)[group], damped(seen, group, np.arange(8)), rtol=1e-4, atol=1e-5)


def test_each_block_has_its_own_columns() -> None:
    seen, covariance = rows(50, 2, 2 * BLOCK), Covariance(2, 2 * BLOCK, 1)
    covariance.add(seen)
    assert [len(columns) for columns in covariance.columns] == [BLOCK, BLOCK]
    for index in (0, 1):
        wanted = damped(seen, 1, np.arange(BLOCK) + BLOCK * index)
        np.testing.assert_allclose(covariance.of(index)[1], wanted, rtol=1e-3, atol=1e-3)


def test_inputs_that_are_always_alike_are_rounded_to_nearest() -> None:
    covariance = Covariance(1, 4, 1)
    covariance.add(np.full((9, 1, 4), 3, np.float32))
    np.testing.assert_allclose(covariance.of(0)[0], DAMPING * np.eye(4))
    weight = np.array([[0.4, 1.6, -2.4, 0.6]], np.float32)
    assert compensate(weight, 0, np.ones(1, np.float32), covariance).tolist() == [[0, 2, -2, 1]]


def test_blocks_in_columns() -> None:
    assert [block.tolist() for block in blocks(3, 2)] == [[0, 1, 2, 3, 4, 5]]
    odd = list(blocks(515, 1))
    assert [(block[0], block[-1], len(block)) for block in odd] == [(0, 511, 512), (512, 514, 3)]
    even = list(blocks(130, 4))  # 128 channels and then 2, each with its taps
    assert [len(block) for block in even] == [512, 8]
    assert even[1].tolist() == [128, 129, 258, 259, 388, 389, 518, 519]
    assert [len(block) for block in blocks(6, 257)] == [514, 514, 514]  # no less than a pair
    assert [len(block) for block in blocks(128, 4)] == [512]
    assert [len(block) for block in blocks(102, 10)] == [500, 500, 20]


def solved(weight: Array, step: float, covariance: Array, limit: int, pairs: bool) -> Array:
    """One row: each weight is rounded from where the errors before it are best made up for."""
    quantized, error = np.zeros(len(weight)), np.zeros(len(weight))
    for j in range(len(weight)):
        rest = -np.linalg.solve(covariance[j:, j:], covariance[j:, :j] @ error[:j])
        quantized[j] = np.clip(np.rint((weight[j] + rest[0]) / step), -limit, limit)
        if pairs and j % 2:
            quantized[j] = np.clip(quantized[j], -PAIR - quantized[j - 1], PAIR - quantized[j - 1])
        error[j] = quantized[j] * step - weight[j]
    return quantized


@pytest.mark.parametrize("room", ["full", "pairs"])
@pytest.mark.parametrize(("groups", "width"), [(1, 10), (2, 6), (1, PANEL + 12), (1, 2 * PANEL + 2)])
def test_each_weight_makes_up_for_those_before(room: Room, groups: int, width: int) -> None:
    random = np.random.default_rng(width)
    weight = random.normal(size=(2 * groups, width)).astype(np.float32)
    step = (np.abs(weight).max(axis=1) / 100).astype(np.float32)
    weight[0] = np.sign(weight[0]) * 100 * step[0]  # neighbors at their largest, where a pair has a limit
    seen, covariance = rows(400, groups, width), Covariance(groups, width, 1)
    covariance.add(seen)
    found = compensate(weight, 0, step, covariance, room)
    assert found.dtype == np.int8
    for output, row in enumerate(weight.astype(np.float64)):
        wanted = solved(row, float(step[output]), covariance.of(0)[output // 2], limit_of(room), room == "pairs")
        np.testing.assert_array_equal(found[output], wanted)
    assert np.abs(found).max() > 90 and (room == "full" or np.abs(found[:, ::2].astype(int) + found[:, 1::2]).max() <= PAIR)


def test_a_kernel_keeps_its_shape() -> None:
    weight = np.random.default_rng(3).normal(size=(5, 4, 2, 3)).astype(np.float32)
    seen, covariance = rows(300, 1, 24), Covariance(1, 4, 6)
    covariance.add(seen)
    step = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    found = compensate(weight, 0, step, covariance)
    assert found.shape == weight.shape
    flat = weight.transpose(0, 2, 3, 1).reshape(5, 24)  # taps outside, channels inside
    wanted = [
        solved(row, float(step[i]), covariance.of(0)[0], limit_of("full"), False) for i, row in enumerate(flat.astype(np.float64))
    ]
    np.testing.assert_array_equal(found.transpose(0, 2, 3, 1).reshape(5, 24), wanted)
