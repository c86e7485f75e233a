"""A network that ends in a Softmax, cut before it, also where half precision hands the answer out through a Cast."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.test_select_values import HELD, SOFT, tiny
from toolkit.graph.fp16 import to_fp16
from toolkit.graph.run import graph_runner
from toolkit.graph.softmax import before_softmax, ends_in_softmax


@pytest.mark.parametrize("keep", [(), ("node_y",)])
def test_a_graph_in_half_precision_is_cut_where_the_fp32_graph_is(keep: tuple[str, ...]) -> None:
    plain = tiny(SOFT)
    half = to_fp16(plain, keep)
    assert ends_in_softmax(half)
    logits = graph_runner(before_softmax(plain), 1)(HELD)
    assert not np.allclose(logits.sum(axis=1), 1)
    np.testing.assert_allclose(graph_runner(before_softmax(half), 1)(HELD), logits, rtol=0.02, atol=0.02 * np.abs(logits).max())
    assert ends_in_softmax(plain) and ends_in_softmax(half), "neither is changed"
