"""Why the shortcut is there: at depth 152 a plain network's first layer is out of the optimizer's reach."""

from __future__ import annotations

import pytest

from research.gradients import gradient_norms


def ratio(arch: str, shortcut: bool, seed: int) -> float:
    """The first layer's gradient norm over the last one's."""
    norms = list(gradient_norms(arch, shortcut=shortcut, seed=seed).values())
    return norms[0] / norms[-1]


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_explode_in_a_plain_network_of_152_layers_and_not_with_shortcuts(seed: int) -> None:
    plain, with_shortcuts = ratio("resnet152", False, seed), ratio("resnet152", True, seed)
    assert plain > 1e8
    assert with_shortcuts < 1e4
    assert with_shortcuts < ratio("resnet50", False, seed), "152 layers with shortcuts are tamer than 50 without"


def test_plain_and_residual_networks_show_the_same_layers_and_seeds_repeat() -> None:
    plain, residual = (gradient_norms("resnet18", shortcut=s, seed=3) for s in (False, True))
    assert list(plain) == list(residual)
    assert residual == gradient_norms("resnet18", shortcut=True, seed=3) != gradient_norms("resnet18", shortcut=True, seed=4)
