import numpy as np
import pytest

from tests.runtime.playing import stage


@pytest.fixture
def play():
    """`playing.stage`, with a check at the end: every device it made must be empty and closed, unless `leaks` is set."""
    stages = []

    def play(*args, leaks=False, **options):
        stages.append((stage(*args, **options), leaks))
        return stages[-1][0]

    yield play
    for played, leaks in stages:
        if not leaks:
            assert played.device.held() == {}
            assert played.device.closed


@pytest.fixture
def images():
    return np.random.default_rng(2).normal(size=(64, 3, 2, 2)).astype(np.float32)
