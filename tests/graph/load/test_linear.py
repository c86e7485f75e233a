"""The linear classifiers of scikit-learn's converter, behind a network: layers like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.graph.load.files import TensorProto, answers, helper, images, node, opened, plain, write
from toolkit.errors import GraphError

ML = [("ai.onnx.ml", 3)]


def classified(path: Path, post: str, *, norm: str | None = "L1", zipped: bool = True, opset: int = 18, **keys: Any) -> Path:
    """As `convert_sklearn` writes a pipeline: Scaler, LinearClassifier, Normalizer, ZipMap, and the label beside it."""
    random = np.random.default_rng(6)
    labels: dict[str, Any] = {"classlabels_ints": [0, 1, 2]} if "classlabels_strings" not in keys else {}
    labels |= {"coefficients": random.normal(size=12).tolist(), "intercepts": [0.5, -0.5, 0.0], "post_transform": post, **keys}
    last = "scaled" if norm is None else "q"
    end = [
        node("Scaler", ["scores"], ["even"], domain="ai.onnx.ml", offset=[0.1, 0.2, 0.3, 0.4], scale=[2.0, 1.0, 0.5, 1.5]),
        node("LinearClassifier", ["even"], ["label", "scaled"], name="linear", domain="ai.onnx.ml", **labels),
    ]
    end += [] if norm is None else [node("Normalizer", ["scaled"], ["q"], domain="ai.onnx.ml", norm=norm)]
    kind = TensorProto.STRING if "classlabels_strings" in labels else TensorProto.INT64
    out = [helper.make_tensor_value_info("label", kind, None)]
    if zipped:
        end.append(node("ZipMap", [last], ["zipped"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]))
        row = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        out.append(helper.make_value_info("zipped", helper.make_sequence_type_proto(row)))
    else:
        out.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
    return write(path, end, outputs=out, domains=ML, opset=opset)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("opset", "norm"), [(18, "L1"), (13, "L1"), (17, None)])
@pytest.mark.parametrize(("post", "meaning"), [("SOFTMAX", "probabilities"), ("LOGISTIC", "probabilities"), ("NONE", "logits")])
def test_a_linear_classifier_becomes_layers(
    tmp_path: Path, post: str, meaning: str, opset: int, norm: str | None, zipped: bool
) -> None:
    norm = None if post == "NONE" else norm
    meaning = "multilabel-probabilities" if post == "LOGISTIC" and norm is None else meaning
    path = classified(tmp_path / "m.onnx", post, norm=norm, opset=opset, zipped=zipped)
    loaded = opened(path, output=None if zipped else "q" if norm else "scaled")
    assert loaded.facts.outputs.are == meaning
    assert not any(node.domain for node in loaded.graph.graph)
    want = plain(classified(tmp_path / "n.onnx", post, norm=norm, opset=opset, zipped=False), images(), "q" if norm else "scaled")
    np.testing.assert_allclose(answers(loaded, images()), want, rtol=1e-4, atol=1e-6)


def test_a_label_beside_its_scores_is_not_the_output(tmp_path: Path) -> None:
    path = classified(tmp_path / "m.onnx", "SOFTMAX", zipped=False, classlabels_strings=["ant", "bee", "cat"])
    facts = opened(path).facts
    assert (facts.output, facts.columns, facts.outputs.are) == ("q", 3, "probabilities")


@pytest.mark.parametrize("norm", ["L2", "MAX"])
def test_other_norms(tmp_path: Path, norm: str) -> None:
    path = classified(tmp_path / "m.onnx", "SOFTMAX", norm=norm, zipped=False)
    loaded = opened(path, output="q", outputs_are="logits")
    np.testing.assert_allclose(answers(loaded, images()), plain(path, images(), "q"), rtol=1e-4, atol=1e-6)


def test_what_is_no_layer_is_refused_with_what_to_put_in_its_place(tmp_path: Path) -> None:
    said = r"LinearClassifier 'linear'.*ai\.onnx\.ml.*put a linear classifier or layers in its place"
    with pytest.raises(GraphError, match=said):
        opened(classified(tmp_path / "m.onnx", "PROBIT"))
