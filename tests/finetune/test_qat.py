"""Fine-tuning against the quantizer that it stands in for, and through the rest of the trip."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional

from toolkit.calibration import Ranges, collect
from toolkit.finetune.fakequant import FakeQuant
from toolkit.finetune.qat import _save, fake_quantized, fine_tune, finetune, state_dict
from toolkit.graph.export import export
from toolkit.graph.qdq import quantize
from toolkit.graph.run import graph_runner
from toolkit.graph.scheme_cpu import watched
from toolkit.images.dataset import open_data
from toolkit.pipeline import prepare
from toolkit.recipe import Recipe
from toolkit.reference.weights import load_reference
from toolkit.types import Float, Progress

RECIPE = Path(__file__).parents[2] / "engines" / "fashion-resnet18-int8.toml"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On so small a network, threads that wait for each other on shared cores cost twenty times the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    recipe = Recipe.load(RECIPE)
    return msgspec.structs.replace(recipe, calibration=msgspec.structs.replace(recipe.calibration, images=64))


@pytest.fixture(scope="module")
def graph(recipe: Recipe) -> ir.Model:
    return export(load_reference(recipe.reference, channels=1), recipe.preprocess)


@pytest.fixture(scope="module")
def ranges(recipe: Recipe, graph: ir.Model) -> Ranges:
    return collect(graph, open_data(recipe.calibration.data, recipe.preprocess, 64).batches(64), watched(graph))


@pytest.fixture(scope="module")
def unseen(recipe: Recipe) -> Float:
    assert recipe.accept.data is not None
    return np.concatenate(list(open_data(recipe.accept.data, recipe.preprocess, 128).batches(64)))


def answers(model: FakeQuant, images: Float) -> Float:
    with torch.no_grad():
        logits: Float = model(torch.from_numpy(images)).numpy()
    return logits


def noise(exact: Float, other: Float) -> float:
    return float(np.square(exact - other).sum() / np.square(exact).sum())


@pytest.mark.parametrize(("target", "scheme"), [("cpu", "cpu"), ("rtx:sm89", "tensorrt")])
def test_its_points_are_the_quantizers(
    recipe: Recipe, graph: ir.Model, ranges: Ranges, unseen: Float, target: str, scheme: str
) -> None:
    """ONNX Runtime runs the real Q/DQ graph; the module must err as that does. Sums in another order flip a rounding here and
    there; errors that had nothing to do with each other would differ by twice the noise."""
    recipe = msgspec.structs.replace(recipe, build=msgspec.structs.replace(recipe.build, target=target))
    quantized = quantize(graph, ranges, recipe.precision, recipe.calibration, scheme=scheme)  # type: ignore[arg-type]
    theirs, exact = graph_runner(quantized)(unseen), graph_runner(graph)(unseen)
    model = fake_quantized(graph, ranges, recipe)
    ours = answers(model, unseen)
    assert noise(theirs, ours) < 0.5 * noise(exact, theirs)
    model.active = False
    np.testing.assert_allclose(answers(model, unseen), exact, atol=2e-4)


def test_weights_lie_on_their_grid(recipe: Recipe, graph: ir.Model, ranges: Ranges) -> None:
    model = fake_quantized(graph, ranges, recipe, weight_bits=3)
    weight, bias = model.layers()["layer1.0.conv1"]
    assert bias is not None
    for channel in weight:
        assert len(torch.unique(channel)) <= 2**3 - 1
    assert len(torch.unique(bias)) > 7


def test_gradients_reach_every_weight_and_range(recipe: Recipe, graph: ir.Model, ranges: Ranges, unseen: Float) -> None:
    model = fake_quantized(graph, ranges, recipe)
    model(torch.from_numpy(unseen[:16])).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_few_steps_halve_the_divergence_of_three_bits(recipe: Recipe, graph: ir.Model, ranges: Ranges, unseen: Float) -> None:
    """On images that training never saw; the full proof, in points of accuracy, is benchmarks/qat.py."""
    model = fake_quantized(graph, ranges, recipe, weight_bits=3)
    truth = functional.log_softmax(torch.from_numpy(graph_runner(graph)(unseen)), 1)

    def divergence() -> float:
        found = functional.log_softmax(torch.from_numpy(answers(model, unseen)), 1)
        return float(functional.kl_div(found, truth, reduction="batchmean", log_target=True))

    before = divergence()
    train = np.concatenate(list(open_data(recipe.calibration.data, recipe.preprocess, 256).batches(64)))
    fine_tune(model, train, steps=12)
    assert divergence() < before / 2


def test_the_trip_goes_on_unchanged(recipe: Recipe, unseen: Float, tmp_path: Path) -> None:
    def quiet(name: str) -> Progress:
        return lambda done, total: None

    tuned = finetune(recipe, tmp_path, steps=2, images=64)
    again = Recipe.load(tmp_path / f"{tuned.name}.toml")
    trip = prepare(again, proof=False)
    assert trip.ranges == Ranges.read(tmp_path / f"{tuned.name}.ranges.json")
    model = fake_quantized(trip.graph, trip.ranges, again)
    quantized = quantize(trip.graph, trip.ranges, again.precision, again.calibration)
    ours, theirs = answers(model, unseen), graph_runner(quantized)(unseen)
    assert noise(theirs, ours) < 0.5 * noise(graph_runner(trip.graph)(unseen), theirs)


def test_untrained_weights_are_the_references(recipe: Recipe, graph: ir.Model, ranges: Ranges, unseen: Float) -> None:
    """With nothing rounded, the state dict that is written computes what the reference computes."""
    model = fake_quantized(graph, ranges, recipe)
    model._rounded = set()
    reference = load_reference(recipe.reference, channels=1)
    expected = graph_runner(graph)(unseen)
    reference.load_state_dict(state_dict(model, reference), strict=True)
    with torch.no_grad():
        found = reference(torch.from_numpy(unseen)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_full_disk_leaves_the_weights_of_an_earlier_run_whole(
    recipe: Recipe, graph: ir.Model, ranges: Ranges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "w.safetensors"
    path.write_bytes(b"those of before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        _save(fake_quantized(graph, ranges, recipe, 8), recipe, path, 0)
    assert path.read_bytes() == b"those of before" and os.listdir(tmp_path) == [path.name]
