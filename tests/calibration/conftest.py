from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.calibration.network import network
from toolkit.types import Float


@pytest.fixture(scope="session")
def graph() -> ir.Model:
    return network()


@pytest.fixture(scope="session")
def images() -> Float:
    return np.random.default_rng(1).standard_normal((90, 3, 12, 12)).astype(np.float32)
