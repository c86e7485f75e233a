"""The linear classifiers of scikit-learn's converter, behind a network: layers like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.graph.load.files import TensorProto, answers, helper, images, node, opened, plain, tensor, write
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


def test_a_binary_classifier_of_two_rows_is_no_multi_label_one(tmp_path: Path) -> None:
    """Two sigmoids, of x and of -x."""
    keys = {"coefficients": [1.0, 2.0, -1.0, 0.5, -1.0, -2.0, 1.0, -0.5], "intercepts": [0.3, -0.3], "classlabels_ints": [0, 1]}
    path = classified(tmp_path / "m.onnx", "LOGISTIC", norm=None, zipped=False, **keys)
    facts = opened(path).facts
    assert (facts.columns, facts.outputs.are) == (2, "probabilities")


def outputs(*named: tuple[str, int]) -> list[Any]:
    return [helper.make_tensor_value_info(name, kind, None) for name, kind in named]


@pytest.mark.parametrize("beside", [False, True])
def test_sigmoids_of_which_the_largest_is_the_answer_are_of_one_class_each(tmp_path: Path, beside: bool) -> None:
    """One classifier a class: the label is the largest, whether or not they stand over their sum beside it."""
    end = [node("Sigmoid", ["scores"], ["each"]), node("ArgMax", ["each"], ["label"], axis=1)]
    end += [node("ReduceSum", ["each", "axes"], ["sum"]), node("Div", ["each", "sum"], ["out"])]
    ends = outputs(("label", TensorProto.INT64), ("out", TensorProto.FLOAT))[: 1 + beside]
    path = write(tmp_path / "m.onnx", end, outputs=ends, more=[tensor("axes", [1], np.int64)])
    facts = opened(path).facts
    assert (facts.output, facts.outputs.are) == ("each", "probabilities")
    alone = write(tmp_path / "a.onnx", end[:1], output="each")
    assert opened(alone).facts.outputs.are == "multilabel-probabilities"


@pytest.mark.parametrize("cut", ["ArrayFeatureExtractor", "Slice", "Split"])
def test_a_column_for_each_output_leads_to_all_of_them(tmp_path: Path, cut: str) -> None:
    """As `zipmap="columns"` writes a classifier, by its version."""
    end = [node("Softmax", ["scores"], ["each"])]
    at = [f"at{i}" for i in range(5)]
    if cut == "ArrayFeatureExtractor":
        end += [node(cut, ["each", at[i]], [f"i{i}"], domain="ai.onnx.ml") for i in range(4)]
    elif cut == "Slice":
        end += [node(cut, ["each", at[i], at[i + 1], at[1]], [f"c{i}"]) for i in range(4)]
    else:
        end.append(node(cut, ["each", "widths"], [f"c{i}" for i in range(4)], axis=1))
    if cut != "ArrayFeatureExtractor":
        end += [node("Reshape", [f"c{i}", "flat"], [f"i{i}"]) for i in range(4)]
    ends = outputs(*((f"i{i}", TensorProto.FLOAT) for i in range(4)))
    more = [*(tensor(name, [i], np.int64) for i, name in enumerate(at)), tensor("flat", [-1], np.int64)]
    more.append(tensor("widths", [1] * 4, np.int64))
    facts = opened(write(tmp_path / "m.onnx", end, outputs=ends, more=more, domains=ML)).facts
    assert (facts.output, facts.columns, facts.outputs.are) == ("each", 4, "probabilities")


def test_halves_and_scores_that_are_cut_are_not_put_together(tmp_path: Path) -> None:
    """Two answers of a network: which one holds the classes is for the person to say."""
    for first, pieces in (("Softmax", [2, 2]), ("Identity", [1] * 4)):
        names = [f"i{i}" for i in range(len(pieces))]
        end = [node(first, ["scores"], ["each"]), node("Split", ["each", "widths"], names, axis=1)]
        ends = outputs(*((name, TensorProto.FLOAT) for name in names))
        with pytest.raises(GraphError, match=rf"has {len(pieces)} outputs"):
            opened(write(tmp_path / f"{first}.onnx", end, outputs=ends, more=[tensor("widths", pieces, np.int64)], domains=ML))


def test_names_that_a_label_is_looked_up_in_are_whole(tmp_path: Path) -> None:
    """A tensor of strings was said to be damaged."""
    names = helper.make_tensor("names", TensorProto.STRING, [4], ["ant", "bee", "cat", "dog"])
    end = [node("Softmax", ["scores"], ["out"]), node("ArgMax", ["out"], ["at"], axis=1, keepdims=0)]
    end.append(node("ArrayFeatureExtractor", ["names", "at"], ["label"], domain="ai.onnx.ml"))
    ends = outputs(("label", TensorProto.STRING), ("out", TensorProto.FLOAT))
    facts = opened(write(tmp_path / "m.onnx", end, outputs=ends, more=[names], domains=ML)).facts
    assert (facts.output, facts.outputs.are) == ("out", "probabilities")
