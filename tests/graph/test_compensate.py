"""Weights are rounded so that a layer's output, and not each weight alone, is nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.graph.networks import fashion_graph, graph_of, pictures, run
from toolkit.calibration import collect
from toolkit.errors import CalibrationError
from toolkit.graph import compensate as room_for
from toolkit.graph.compensate import Covariance, blocks, compensate
from toolkit.graph.qdq import quantize
from toolkit.graph.rounded import Rounded, Roundings, round_weights
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.weights import fits_16_bits, quantize_weight
from toolkit.recipe import Calibration, Precision

ANEW = Precision(int8=True, rounding="compensated", bias_correction=True)


def correlated(positions: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows whose columns move together, as neighboring pixels do."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(positions, width // 4)) @ random.normal(size=(width // 4, width))).astype(np.float32)


def loss(rows: np.ndarray, weight: np.ndarray, values: np.ndarray, step: np.ndarray) -> float:
    """The squared error of the layer's output, its mean aside."""
    error = (values * step[:, None].astype(np.float64) - weight) @ (rows - rows.mean(axis=0)).T.astype(np.float64)
    return float((error**2).mean())


@pytest.mark.parametrize("room", ["full", "pairs"])
def test_the_output_errs_far_less_than_with_rounding_to_nearest(room: str) -> None:
    weight = np.random.default_rng(1).normal(size=(32, 64)).astype(np.float32)
    covariance, rows, fresh = Covariance(1, 64, 1), correlated(4096, 64), correlated(4096, 64)
    covariance.add(rows[:, None, :])
    nearest, step = quantize_weight(weight, 0, "absmax", room)  # type: ignore[arg-type]
    anew = compensate(weight, 0, step, covariance, room)  # type: ignore[arg-type]
    assert loss(fresh, weight, anew, step) < 0.3 * loss(fresh, weight, nearest, step)
    assert fits_16_bits(anew, 0) or room == "full"


def test_inputs_that_do_not_move_together_leave_the_nearest() -> None:
    weight = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)
    covariance = Covariance(1, 16, 1)
    covariance.add(np.concatenate([np.eye(16), -np.eye(16)]).astype(np.float32)[:, None, :])
    nearest, step = quantize_weight(weight, 0)
    np.testing.assert_array_equal(compensate(weight, 0, step, covariance), nearest)


@pytest.mark.parametrize(("channels", "taps"), [(3, 49), (512, 9), (2048, 1), (62, 9), (515, 1), (1, 9)])
def test_blocks_part_a_row_and_never_a_pair(channels: int, taps: int) -> None:
    parts = list(blocks(channels, taps))
    assert sorted(np.concatenate(parts).tolist()) == list(range(channels * taps))
    for part in parts:
        assert len(part) <= max(room_for.BLOCK, 2 * taps)
        assert part[0] % 2 == 0
        inside = [(a, b) for a, b in zip(part[0::2], part[1::2], strict=False)]
        assert all(b == a + 1 and a % 2 == 0 for a, b in inside)


def layers(model: nn.Module, batch: np.ndarray) -> dict[str, Rounded]:
    with torch.inference_mode():
        model(torch.from_numpy(batch))
    return round_weights(graph_of(model), [batch], ANEW)


def test_what_is_sampled_is_what_torch_multiplies() -> None:
    """With every position sampled, stride, dilation, groups and uneven padding give the covariance that torch's unfold gives."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=(1, 2), groups=2)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), conv, nn.Flatten(), nn.LazyLinear(10)).eval()
    batch = pictures(8, "train")
    found = layers(model, batch)["1"]
    with torch.inference_mode():
        seen = model[0](torch.from_numpy(batch))
        rows = nn.functional.unfold(seen, 3, (1, 2), (2, 1), 2).permute(0, 2, 1).reshape(-1, 2, 2, 9)
    expected = Covariance(2, 2, 9)
    expected.add(rows.permute(0, 1, 3, 2).reshape(-1, 2, 18).numpy())
    weight = conv.weight.detach().numpy()
    np.testing.assert_array_equal(found.values, compensate(weight, 0, found.step, expected))


def test_the_logits_come_closer_and_the_same_again() -> None:
    graph, images, batch = fashion_graph("resnet18"), pictures(64, "train"), pictures(500)
    ranges, truth = collect(graph, [images], watched(graph), threads=1), run(graph, batch)
    errors = {}
    for rounding in ("nearest", "compensated"):
        precision = Precision(int8=True, rounding=rounding, bias_correction=True)  # type: ignore[arg-type]
        roundings = Roundings(lambda pixels: [images])
        rounded = roundings.of(graph, precision, "pairs")
        assert roundings.of(graph, precision, "pairs") is rounded
        made = quantize(graph, ranges, precision, Calibration(method="mse"), room="pairs", rounded=rounded)
        errors[rounding] = ((run(made, batch) - truth) ** 2).mean()
    assert errors["compensated"] < 0.85 * errors["nearest"]
    again = round_weights(graph, [images[:20], images[20:]], precision, "pairs")
    assert all((again[name].values == one.values).all() for name, one in rounded.items())


def test_a_graph_made_anew_is_not_measured_again() -> None:
    """A graph that takes pixels is made for each target and trial; what it computes tells whether its weights are known."""
    asked: list[bool] = []

    def images(pixels: bool) -> list[np.ndarray]:
        asked.append(pixels)
        return [pictures(8, "train")]

    graph, roundings = fashion_graph("resnet18"), Roundings(images)
    rounded = roundings.of(graph, ANEW, "pairs")
    assert roundings.of(graph.clone(), ANEW, "pairs") is rounded
    assert len(asked) == 1
    assert roundings.of(fashion_graph("resnet18", "streams"), ANEW, "pairs") is not rounded
    assert len(asked) == 2


def test_what_a_typed_graph_holds_is_read_from_it() -> None:
    graph, images = fashion_graph("resnet18"), pictures(16, "train")
    ranges, roundings = collect(graph, [images], watched(graph), threads=1), Roundings(lambda pixels: [images])
    rounded = roundings.of(graph, ANEW, "pairs")
    made = quantize(graph, ranges, ANEW, Calibration(method="mse"), room="pairs", rounded=rounded)
    again = Roundings(lambda pixels: pytest.fail("measured again"))
    again.take(graph, made, ANEW, "pairs")
    found = again.of(graph, ANEW, "pairs")
    assert found.keys() == rounded.keys()
    for name, one in found.items():
        np.testing.assert_array_equal(one.values, rounded[name].values)
        np.testing.assert_array_equal(one.step, rounded[name].step)
        np.testing.assert_allclose(one.shift, rounded[name].shift, atol=1e-5)


def test_no_image_is_an_error_and_a_nan_is_named() -> None:
    graph = fashion_graph("resnet18")
    with pytest.raises(CalibrationError, match="no images"):
        round_weights(graph, [], ANEW)
    images = pictures(2)
    images[1, 0, 3, 3] = np.nan
    with pytest.raises(CalibrationError, match="for image 1"):
        round_weights(graph, [images], ANEW)


@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_inputs_that_hardly_change_beside_their_mean_keep_their_covariance(spread: float) -> None:
    """As behind a pooling over images that are all alike: in float32 the squares of the mean alone would be noise."""
    random = np.random.default_rng(0)
    rows = (random.normal(size=16) * 30 + spread * random.normal(size=(64, 16))).astype(np.float32)
    covariance = Covariance(1, 16, 1)
    for part in np.split(rows, 8):
        covariance.add(part[:, None, :])
    found, expected = covariance.of(0)[0], np.cov(rows.astype(np.float64).T, bias=True)
    away = ~np.eye(16, dtype=bool)  # the diagonal has more added to it
    np.testing.assert_allclose(found[away], expected[away], atol=1e-3 * spread**2)
    assert np.linalg.eigvalsh(found).min() > 0
