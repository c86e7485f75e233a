"""The settings of INT8 are chosen by what they do to the logits on images that the ranges were not drawn from."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.networks import fashion_graph, pictures
from toolkit.calibration import Ranges, collect
from toolkit.graph import select as room
from toolkit.graph.gain import gain_of
from toolkit.graph.rounded import Roundings
from toolkit.graph.scheme_cpu import watched
from toolkit.graph.select import LEAST, SURE, Selected, Settings, select
from toolkit.recipe import Calibration, Precision


def ranges_of(graph: ir.Model, whole: bool) -> Ranges:
    images = pictures(24, "train")
    return collect(graph, [images if whole else images[:8]], watched(graph), threads=1)


def choose(graph: ir.Model, settings: Settings, roundings: Roundings | None = None) -> Selected:
    images = pictures(40, "train")
    few = [images[i : i + 1] for i in range(24)]
    return select(graph, settings, few, images[24:], ranges_of, scheme="cpu", room="full", roundings=roundings)


OPEN = Settings(Precision(int8=True), Calibration())


@pytest.fixture(scope="module")
def hostile() -> Selected:
    return choose(fashion_graph("resnet18", "streams"), OPEN)


def test_what_is_open_is_settled_with_a_reason_each(hostile: Selected) -> None:
    assert not hostile.settings.open
    assert hostile.settings.precision.equalize == "streams"  # pairs and none leave these weights at chance
    text = "\n".join(hostile.reasons)
    for key in ("equalize", "method", "rounding", "bias_correction"):
        assert f"auto: {key} = {hostile.settings.value(key)}, " in text
    assert "16 calibration images held back" in text


def test_the_same_inputs_give_the_same_choice(hostile: Selected) -> None:
    again = choose(fashion_graph("resnet18", "streams"), OPEN)
    assert again.settings == hostile.settings
    assert again.reasons == hostile.reasons


def test_trying_two_changes_at_a_time_chooses_as_one_after_the_other(hostile: Selected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LANES", 1)
    found = choose(fashion_graph("resnet18", "streams"), OPEN)
    assert (found.settings, found.reasons) == (hostile.settings, hostile.reasons)


def test_weights_are_rounded_once_for_the_choice_and_the_build() -> None:
    asked: list[bool] = []

    def images(pixels: bool) -> list[np.ndarray]:
        asked.append(pixels)
        return [pictures(24, "train")]

    found = choose(fashion_graph("resnet18"), OPEN, Roundings(images))
    built = msgspec.structs.replace(found.settings.precision, rounding="compensated", bias_correction=True)
    found.roundings.of(found.graph, built, "full")
    assert len(asked) == 1


def test_of_fp8_only_the_equalization_is_chosen_and_no_weight_is_rounded_for_it() -> None:
    """Its scales come from the largest magnitude and its weights are rounded to nearest, whatever the recipe says."""

    def images(pixels: bool) -> list[np.ndarray]:
        raise AssertionError("weights were rounded for nothing")

    found = choose(fashion_graph("resnet18"), Settings(Precision(fp8=True), Calibration()), Roundings(images))
    assert not found.settings.open and not found.settings.unset
    assert [reason.partition(" =")[0] for reason in found.reasons[:-1]] == ["auto: equalize"]
    assert found.settings.precision.rounding == "nearest" and found.settings.calibration.method == "mse"


def test_what_is_given_stays() -> None:
    given = Settings(Precision(int8=True, equalize="none", weights="absmax"), Calibration(method="entropy"))
    found = choose(fashion_graph("resnet18"), given)
    assert (found.settings.precision.equalize, found.settings.calibration.method) == ("none", "entropy")
    assert not any("equalize" in reason or "method" in reason for reason in found.reasons)
    assert found.settings.precision.methods == {}


def test_a_gain_must_exceed_its_own_error() -> None:
    random = np.random.default_rng(0)
    before = random.exponential(size=32)
    gain, error = gain_of(before, before * 0.5)
    assert gain == pytest.approx(3.01, abs=0.01)
    assert error == pytest.approx(0, abs=1e-9)
    after = before * 0.9
    after[3], before[3] = 0.1, 60.0  # one image decides it all
    gain, error = gain_of(before, after)
    assert gain > 3
    assert SURE * error > gain


def test_answers_that_are_not_finite_never_win() -> None:
    fine, broken = np.ones(LEAST), np.array([1.0, 1.0, 1.0, np.inf])
    assert gain_of(fine, broken)[0] <= 0
    assert gain_of(broken, fine)[0] == np.inf
