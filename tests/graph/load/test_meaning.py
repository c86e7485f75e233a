"""What the outputs of a file mean is read off the operators that it ends in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.graph.load.files import TensorProto, answers, helper, images, node, opened, plain, scores, tensor, write
from toolkit.errors import GraphError

ONE = [tensor("one", 1.0), tensor("axes", [1], np.int64)]
ENDS = {
    "logits": ([], 4, "logits"),
    "softmax": ([node("Softmax", ["scores"], ["out"])], 4, "probabilities"),
    "softmax, then Reshape": (
        [node("Softmax", ["scores"], ["s"]), node("Unsqueeze", ["s", "axes"], ["u"]), node("Squeeze", ["u", "axes"], ["out"])],
        4,
        "probabilities",
    ),
    "softmax written out": (
        [
            node("ReduceMax", ["scores", "axes"], ["top"]),
            node("Sub", ["scores", "top"], ["less"]),
            node("Exp", ["less"], ["e"]),
            node("ReduceSum", ["e", "axes"], ["sum"]),
            node("Div", ["e", "sum"], ["out"]),
        ],
        4,
        "probabilities",
    ),
    "log-softmax": ([node("LogSoftmax", ["scores"], ["out"])], 4, "log-probabilities"),
    "log of softmax": ([node("Softmax", ["scores"], ["s"]), node("Log", ["s"], ["out"])], 4, "log-probabilities"),
    "log-softmax written out": (
        [
            node("Exp", ["scores"], ["e"]),
            node("ReduceSum", ["e", "axes"], ["sum"]),
            node("Log", ["sum"], ["l"]),
            node("Sub", ["scores", "l"], ["out"]),
        ],
        4,
        "log-probabilities",
    ),
    "softmax by its logarithm": (
        [
            node("ReduceLogSumExp", ["scores", "axes"], ["sum"], keepdims=0),
            node("Unsqueeze", ["sum", "axes"], ["column"]),
            node("Sub", ["scores", "column"], ["l"]),
            node("Exp", ["l"], ["out"]),
        ],
        4,
        "probabilities",
    ),
    "one logit": ([], 1, "binary-logit"),
    "one sigmoid": ([node("Sigmoid", ["scores"], ["out"])], 1, "binary-probability"),
    "one sigmoid, squeezed to [N]": (
        [node("Sigmoid", ["scores"], ["s"]), node("Squeeze", ["s", "axes"], ["out"])],
        1,
        "binary-probability",
    ),
    "p and 1 - p": (
        [
            node("Sigmoid", ["scores"], ["yes"]),
            node("Sub", ["one", "yes"], ["no"]),
            node("Concat", ["no", "yes"], ["out"], axis=1),
        ],
        1,
        "probabilities",
    ),
    "several sigmoids": ([node("Sigmoid", ["scores"], ["out"])], 4, "multilabel-probabilities"),
    "sigmoid written out": (
        [
            node("Neg", ["scores"], ["n"]),
            node("Exp", ["n"], ["e"]),
            node("Add", ["e", "one"], ["d"]),
            node("Div", ["one", "d"], ["out"]),
        ],
        4,
        "multilabel-probabilities",
    ),
}
HALVES = [node("Slice", ["scores", "zero", "two", "axes"], ["left"]), node("Slice", ["scores", "two", "four", "axes"], ["right"])]
FLAT = [node("Mul", ["scores", "none"], ["flat"])]  # as a last layer that was never trained answers
OTHER_WAY = [node("Neg", ["scores"], ["n"])]
JOINED = {
    "softmax, in another order": (
        [node("Softmax", ["scores"], ["s"]), node("Gather", ["s", "order"], ["out"], axis=1)],
        "probabilities",
    ),
    "average of softmaxes that are the same for all": (
        [
            *FLAT,
            node("Softmax", ["flat"], ["s"]),
            node("Add", ["s", "s"], ["both"]),
            node("Mul", ["both", "half"], ["out"]),
        ],
        "probabilities",
    ),
    "softmax, cut and joined": (
        [
            node("Softmax", ["scores"], ["s"]),
            node("Slice", ["s", "zero", "two", "axes"], ["left"]),
            node("Slice", ["s", "two", "four", "axes"], ["right"]),
            node("Concat", ["left", "right"], ["out"], axis=1),
        ],
        "probabilities",
    ),
    "average of two softmaxes": (
        [
            *OTHER_WAY,
            node("Softmax", ["scores"], ["s"]),
            node("Softmax", ["n"], ["t"]),
            node("Add", ["s", "t"], ["both"]),
            node("Mul", ["both", "half"], ["out"]),
        ],
        "probabilities",
    ),
    "average of a stack of softmaxes": (
        [
            *OTHER_WAY,
            node("Softmax", ["scores"], ["s"]),
            node("Softmax", ["n"], ["t"]),
            node("Unsqueeze", ["s", "zero"], ["u"]),
            node("Unsqueeze", ["t", "zero"], ["v"]),
            node("Concat", ["u", "v"], ["stack"], axis=0),
            node("ReduceMean", ["stack", "zero"], ["out"], keepdims=0),
        ],
        "probabilities",
    ),
    "average of two sigmoids": (
        [
            node("Mul", ["scores", "half"], ["n"]),
            node("Sigmoid", ["scores"], ["s"]),
            node("Sigmoid", ["n"], ["t"]),
            node("Add", ["s", "t"], ["both"]),
            node("Mul", ["both", "half"], ["out"]),
        ],
        "multilabel-probabilities",
    ),
    "one column of a softmax": (
        [node("Softmax", ["scores"], ["s"]), node("Slice", ["s", "zero", "axes", "axes"], ["out"])],
        "binary-probability",
    ),
    "scores over their sum": (
        [
            node("Relu", ["scores"], ["kept"]),
            node("Add", ["kept", "half"], ["more"]),
            node("ReduceSum", ["more", "axes"], ["sum"]),
            node("Div", ["more", "sum"], ["out"]),
        ],
        "probabilities",
    ),
    "squares over their sum": (
        [
            node("Mul", ["scores", "scores"], ["squares"]),
            node("ReduceSum", ["squares", "axes"], ["sum"]),
            node("Div", ["squares", "sum"], ["out"]),
        ],
        "probabilities",
    ),
    "softmax, rounded to two digits": (
        [
            node("Softmax", ["scores"], ["s"]),
            node("Mul", ["s", "hundred"], ["percent"]),
            node("Round", ["percent"], ["whole"]),
            node("Div", ["whole", "hundred"], ["out"]),
        ],
        "probabilities",
    ),
    "softmax without its small values": (
        [
            node("Softmax", ["scores"], ["s"]),
            node("Greater", ["s", "tenth"], ["large"]),
            node("Where", ["large", "s", "none"], ["out"]),
        ],
        "probabilities",
    ),
    "softmax, added up to groups of classes": (
        [node("Softmax", ["scores"], ["s"]), node("MatMul", ["s", "groups"], ["out"])],
        "probabilities",
    ),
    "how sure, times which class": (
        [
            node("Slice", ["scores", "zero", "two", "axes"], ["left"]),
            node("Softmax", ["scores"], ["s"]),
            node("ReduceMax", ["left", "axes"], ["top"]),
            node("Sigmoid", ["top"], ["sure"]),
            node("Mul", ["s", "sure"], ["out"]),
        ],
        "probabilities",
    ),
    "which class, times how sure": (
        [
            node("Slice", ["scores", "zero", "two", "axes"], ["left"]),
            node("Softmax", ["scores"], ["s"]),
            node("ReduceMax", ["left", "axes"], ["top"]),
            node("Sigmoid", ["top"], ["sure"]),
            node("Mul", ["sure", "s"], ["out"]),
        ],
        "probabilities",
    ),
    "logits within limits": (
        [
            node("Div", ["scores", "hundred"], ["small"]),
            node("Tanh", ["small"], ["t"]),
            node("Mul", ["t", "hundred"], ["out"]),
        ],
        "logits",
    ),
    "logits within limits, by a clip": ([node("Clip", ["scores", "less", "hundred"], ["out"])], "logits"),
    "a hard sigmoid, by a clip": (
        [
            node("Add", ["scores", "three"], ["more"]),
            node("Clip", ["more", "none", "six"], ["within"]),
            node("Div", ["within", "six"], ["out"]),
        ],
        "multilabel-probabilities",
    ),
    "a yes or no for each": ([node("Greater", ["scores", "none"], ["out"])], "multilabel-probabilities"),
    "gated experts": (
        [node("Softmax", ["scores"], ["s"]), node("Relu", ["scores"], ["kept"]), node("Mul", ["s", "kept"], ["out"])],
        "logits",
    ),
}
NUMBERS = [
    tensor("zero", [0], np.int64), tensor("two", [2], np.int64), tensor("four", [4], np.int64), tensor("half", 0.5),
    tensor("order", [1, 0, 2, 3], np.int64), tensor("hundred", 100.0), tensor("none", 0.0),
    tensor("three", 3.0), tensor("six", 6.0), tensor("less", -100.0),
    tensor("tenth", 0.1), tensor("byte", 255.0), tensor("groups", [[1, 0], [1, 0], [0, 1], [0, 1]]),
]  # fmt: skip


@pytest.mark.parametrize("kind", JOINED)
def test_answers_tell_where_the_last_operators_do_not(tmp_path: Path, kind: str) -> None:
    end, wanted = JOINED[kind]
    loaded = opened(write(tmp_path / "m.onnx", end, output="out", more=[*ONE, *NUMBERS]))
    assert loaded.facts.outputs.are == wanted


AVERAGES = ("average of two softmaxes", "average of a stack of softmaxes", "average of softmaxes that are the same for all")


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("cut", ["by the recipe", "by the file"])
def test_what_is_left_of_an_average_of_softmaxes_is_one(tmp_path: Path, kind: str, cut: str) -> None:
    """Without its background class it adds up to less than 1, and not to the same each time, as several labels would."""
    end, _ = JOINED[kind]
    sliced = [node("Slice", ["out", "axes", "four", "axes"], ["rest"])] if cut == "by the file" else []
    path = write(tmp_path / "m.onnx", [*end, *sliced], output="rest" if sliced else "out", more=[*ONE, *NUMBERS])
    facts = opened(path, offset=0 if sliced else 1).facts
    assert (facts.columns, facts.outputs.are) == (3, "probabilities")


def test_what_is_left_of_percent_is_still_refused(tmp_path: Path) -> None:
    end, said = REFUSED["percent"]
    with pytest.raises(GraphError, match=f"the 4 columns of 'out' .*{said}"):
        opened(write(tmp_path / "m.onnx", end, output="out", more=[*ONE, *NUMBERS]), offset=1)


UNSURE = [  # a tenth of a probability
    node("ReduceMax", ["scores", "axes"], ["top"]),
    node("Sigmoid", ["top"], ["gate"]),
    node("Mul", ["gate", "tenth"], ["sure"]),
]
REFUSED = {
    "percent": ([node("Softmax", ["scores"], ["s"]), node("Mul", ["s", "hundred"], ["out"])], r"add up to 100.*output=\"s\""),
    "two heads": (
        [
            *HALVES,
            node("Softmax", ["left"], ["s"]),
            node("Softmax", ["right"], ["t"]),
            node("Concat", ["s", "t"], ["out"], axis=1),
        ],
        r"add up to 2: .*output=\"s\"",
    ),
    "softmax in levels of a byte": (
        [node("Softmax", ["scores"], ["s"]), node("Mul", ["s", "byte"], ["levels"]), node("Round", ["levels"], ["out"])],
        r"only lie in 0 to 255: .*output=\"s\"",
    ),
    "roots of a softmax": (
        [node("Softmax", ["scores"], ["s"]), node("Sqrt", ["s"], ["out"])],
        r"made of a softmax, and add up to as much as .*output=\"s\"",
    ),
    "roots of a softmax, times how sure": (
        [*UNSURE, node("Softmax", ["scores"], ["s"]), node("Sqrt", ["s"], ["root"]), node("Mul", ["root", "sure"], ["out"])],
        r"made of a softmax, and are not in proportion to it: .*output=\"s\"",
    ),
    "squares of a softmax": (
        [node("Softmax", ["scores"], ["s"]), node("Mul", ["s", "s"], ["out"])],
        r"made of a softmax, and are not in proportion to it: .*output=\"s\"",
    ),
    "1 minus a softmax": (
        [node("Softmax", ["scores"], ["s"]), node("Sub", ["one", "s"], ["out"])],
        r"gives 1 minus a softmax, which is large where the answer is no.*output=\"s\"",
    ),
    "1 minus sigmoids": (
        [node("Sigmoid", ["scores"], ["s"]), node("Neg", ["s"], ["n"]), node("Add", ["n", "one"], ["out"])],
        r"gives 1 minus a sigmoid, which is large where the answer is no.*output=\"s\"",
    ),
    "tanh": ([node("Tanh", ["scores"], ["out"])], r"only lie in -1 to 1: .*output=\"scores\""),
    "scaled sigmoids": (
        [node("Sigmoid", ["scores"], ["s"]), node("Mul", ["s", "hundred"], ["out"])],
        r"only lie in 0 to 100: .*outputs_are.*output=\"s\"",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_columns_that_are_neither_logits_nor_probabilities_are_refused(tmp_path: Path, kind: str) -> None:
    end, said = REFUSED[kind]
    path = write(tmp_path / "m.onnx", end, output="out", more=[*ONE, *NUMBERS])
    with pytest.raises(GraphError, match=said):
        opened(path)
    inner = said.split('output=\\"')[1][:-2]
    assert opened(path, output=inner).facts.outputs.are in ("probabilities", "multilabel-probabilities", "logits")
    assert opened(path, outputs_are="logits").facts.outputs.are == "logits"


def test_a_softmax_over_the_batch_is_refused(tmp_path: Path) -> None:
    """As `nn.Softmax(dim=0)` does: every class of a single image got 1."""
    path = write(tmp_path / "m.onnx", [node("Softmax", ["scores"], ["out"], axis=0)], output="out")
    with pytest.raises(GraphError, match=r"ends in a Softmax over axis 0, the images of a batch.*output=\"scores\""):
        opened(path)
    assert opened(path, output="scores").facts.outputs.are == "logits"
    turned = [node("Transpose", ["scores"], ["t"]), node("Softmax", ["t"], ["s"], axis=0), node("Transpose", ["s"], ["out"])]
    assert opened(write(tmp_path / "t.onnx", turned, output="out")).facts.outputs.are == "probabilities"


def test_averages_over_noise_that_hardly_differ_are_logits_still(tmp_path: Path) -> None:
    """As SqueezeNet ends: ReLUs, averaged over an image. On noise their sum is the same within a thousandth."""
    end = [
        node("Relu", ["scores"], ["kept"]),
        node("Mul", ["kept", "little"], ["part"]),
        node("Add", ["part", "much"], ["out"]),
    ]
    more = [tensor("little", 1e-3), tensor("much", [1.0, 2.0, 3.0, 4.0])]
    loaded = opened(write(tmp_path / "m.onnx", end, output="out", more=more))
    found = answers(loaded, images())
    assert np.ptp(found.sum(axis=1)) < 1e-3 * found.sum(axis=1).mean()
    assert loaded.facts.outputs.are == "logits"


def test_distances_are_refused(tmp_path: Path) -> None:
    """To centers of classes: the least is the answer."""
    end = [
        node("Unsqueeze", ["scores", "axes"], ["u"]),
        node("Sub", ["u", "centers"], ["apart"]),
        node("Mul", ["apart", "apart"], ["squares"]),
        node("ReduceSum", ["squares", "last"], ["sum"], keepdims=0),
        node("Sqrt", ["sum"], ["out"]),
    ]
    more = [*ONE, tensor("centers", np.arange(12).reshape(1, 3, 4)), tensor("last", [-1], np.int64)]
    path = write(tmp_path / "m.onnx", end, output="out", more=more)
    with pytest.raises(GraphError, match=r"distances \(Sqrt\), of which the least may be the answer"):
        opened(path)
    away = write(tmp_path / "away.onnx", [*end, node("Neg", ["out"], ["near"])], output="near", more=more)
    assert opened(away).facts.outputs.are == "logits"


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_a_column_of_1_minus_a_probability_is_refused(tmp_path: Path, kind: str) -> None:
    """It says no where it is large: with labels the reference is at chance or below, and without any nothing would tell."""
    last = {
        "sigmoid": [node("Sigmoid", ["scores"], ["yes"])],
        "softmax": [node("Softmax", ["scores"], ["s"]), node("Gather", ["s", "zero"], ["yes"], axis=1)],
    }[kind]
    classes = 1 if kind == "sigmoid" else 2
    minus = [*last, node("Sub", ["one", "yes"], ["out"])]
    path = write(tmp_path / "m.onnx", minus, classes=classes, output="out", more=[*ONE, *NUMBERS])
    if kind == "softmax":  # 1 minus the first of two columns is the second
        assert opened(path).facts.outputs.are == "binary-probability"
        return
    with pytest.raises(GraphError, match=r"gives 1 minus a sigmoid.*output=\"yes\".*outputs_are"):
        opened(path)
    assert opened(path, output="yes").facts.outputs.are == "binary-probability"
    assert opened(path, outputs_are="binary-probability").facts.outputs.are == "binary-probability"


def test_1_minus_the_second_column_of_a_softmax_is_refused(tmp_path: Path) -> None:
    second = [
        node("Softmax", ["scores"], ["s"]),
        node("Gather", ["s", "at"], ["yes"], axis=1),
        node("Sub", ["one", "yes"], ["out"]),
    ]
    path = write(tmp_path / "m.onnx", second, classes=2, output="out", more=[*ONE, tensor("at", [1], np.int64)])
    with pytest.raises(GraphError, match=r"first of a softmax's two columns.*output=\"s\""):
        opened(path)


ASSUMED = {
    "one logit": ([], 1, "single column is taken as the logit of class 1 of two, which is answered above 0: .*regression"),
    "one sigmoid": (
        [node("Sigmoid", ["scores"], ["out"])],
        1,
        "single column is taken as the probability of class 1 of two, which is answered above 0.5: .*threshold.*regression",
    ),
    "several sigmoids": ([node("Sigmoid", ["scores"], ["out"])], 4, "taken as labels, .*above 0.5: .*outputs_are"),
}


@pytest.mark.parametrize("kind", ASSUMED)
def test_what_is_assumed_of_columns_is_said_unless_the_recipe_says_it(tmp_path: Path, kind: str) -> None:
    end, classes, said = ASSUMED[kind]
    path = write(tmp_path / "m.onnx", end, classes=classes, output="out" if end else "scores")
    facts = opened(path).facts
    assert [note for note in facts.notes if re.search(said, note)]
    again = opened(path, outputs_are=facts.outputs.are).facts
    assert again.outputs == facts.outputs
    assert not any("taken as" in note for note in again.notes)


def test_a_sigmoid_of_features_beside_logits_is_not_taken_for_the_answer(tmp_path: Path) -> None:
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("embedding", "scores")]
    embedding = [node("Sigmoid", ["features"], ["embedding"])]
    with pytest.raises(GraphError, match=r"has 2 outputs: .*--set output=\"scores\""):
        opened(write(tmp_path / "m.onnx", embedding, outputs=outputs))
    below = [node("Sigmoid", ["scores"], ["embedding"])]  # probabilities beside the logits that they are made of
    assert opened(write(tmp_path / "p.onnx", below, outputs=outputs)).facts.output == "embedding"


def test_the_first_of_two_columns_of_a_softmax_is_refused(tmp_path: Path) -> None:
    """It says no where it is large. The second is the probability of a yes."""
    soft = node("Softmax", ["scores"], ["s"])
    for column in (0, 1):
        end = [soft, node("Gather", ["s", "at"], ["out"], axis=1)]
        path = write(tmp_path / f"{column}.onnx", end, classes=2, output="out", more=[tensor("at", [column], np.int64)])
        if column:
            assert opened(path).facts.outputs.are == "binary-probability"
        else:
            with pytest.raises(GraphError, match=r"first of a softmax's two columns.*output=\"s\""):
                opened(path)


@pytest.mark.parametrize("kind", ENDS)
def test_the_end_of_the_graph_says_what_its_columns_are(tmp_path: Path, kind: str) -> None:
    end, classes, wanted = ENDS[kind]
    path = write(tmp_path / "m.onnx", end, classes=classes, output="out" if end else "scores", more=ONE)
    loaded = opened(path)
    assert loaded.facts.outputs.are == wanted
    found = answers(loaded, images())
    assert found.shape == (5, loaded.facts.columns)
    np.testing.assert_allclose(found, plain(path, images()).reshape(5, -1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["ArgMax", "ArgMax without its axis", "TopK", "label beside probabilities", "Softmax, ArgMax and Cast"]
)
def test_scores_that_the_file_only_picks_from_are_the_output(tmp_path: Path, kind: str) -> None:
    label = helper.make_tensor_value_info("label", TensorProto.INT64, None)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    soft = node("Softmax", ["scores"], ["out"])
    end, outputs = {
        "ArgMax": ([node("ArgMax", ["scores"], ["label"], axis=1)], [label]),
        "ArgMax without its axis": ([node("ArgMax", ["scores"], ["label"], axis=-1, keepdims=0)], [label]),
        "TopK": ([node("TopK", ["scores", "k"], ["out", "label"], axis=1)], [out, label]),
        "label beside probabilities": ([soft, node("ArgMax", ["scores"], ["label"], axis=1)], [label, out]),
        "Softmax, ArgMax and Cast": (
            [soft, node("ArgMax", ["out"], ["a"], axis=1, keepdims=0), node("Cast", ["a"], ["label"], to=TensorProto.INT32)],
            [helper.make_tensor_value_info("label", TensorProto.INT32, None)],
        ),
    }[kind]
    loaded = opened(write(tmp_path / "m.onnx", end, outputs=outputs, more=[tensor("k", [2], np.int64)]))
    assert loaded.facts.output == ("out" if "robabilities" in kind or "Softmax" in kind else "scores")
    assert loaded.facts.columns == 4
    want = scores(images())
    if loaded.facts.output == "out":
        want = np.exp(want) / np.exp(want).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers(loaded, images()), want, rtol=1e-4, atol=1e-6)


def test_a_dictionary_at_the_end_is_cut_off(tmp_path: Path) -> None:
    """As scikit-learn's converter ends a classifier: a label, and a ZipMap of the probabilities."""
    row = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    entry = helper.make_value_info("zipped", helper.make_sequence_type_proto(row))
    label = helper.make_tensor_value_info("label", TensorProto.INT64, None)
    end = [
        node("Softmax", ["scores"], ["probabilities"]),
        node("ZipMap", ["probabilities"], ["zipped"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3]),
        node("ArgMax", ["probabilities"], ["index"], axis=1),
        node("ArrayFeatureExtractor", ["labels", "index"], ["label"], domain="ai.onnx.ml"),
    ]
    more = [tensor("labels", [7, 8, 9, 10], np.int64)]
    path = write(tmp_path / "m.onnx", end, outputs=[label, entry], more=more, domains=[("ai.onnx.ml", 3)])
    loaded = opened(path)
    assert (loaded.facts.output, loaded.facts.outputs.are) == ("probabilities", "probabilities")
    assert any("'probabilities'" in note for note in loaded.facts.notes)
    assert loaded.original is not None
    np.testing.assert_allclose(answers(loaded, images()).sum(axis=1), 1, rtol=1e-5)


def test_any_tensor_may_be_named(tmp_path: Path) -> None:
    loaded = opened(write(tmp_path / "m.onnx", [node("Softmax", ["scores"], ["out"])], output="out"), output="scores")
    assert loaded.facts.outputs.are == "logits"
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=1e-4, atol=1e-6)


def test_the_recipe_may_say_what_the_graph_cannot(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    found = opened(path, outputs_are="multilabel-logits", threshold=0.3).facts.outputs
    assert (found.are, found.limit) == ("multilabel-logits", 0.3)
    with pytest.raises(GraphError, match=r"binary-logit, which has one column; .* gives 4"):
        opened(path, outputs_are="binary-logit")


def test_a_softmax_over_one_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"softmax over one column, which is always 1.*reference\.output"):
        opened(write(tmp_path / "m.onnx", [node("Softmax", ["scores"], ["out"])], output="out", classes=1))


def test_columns_before_the_first_class_are_left_out(tmp_path: Path) -> None:
    loaded = opened(write(tmp_path / "m.onnx", [node("Softmax", ["scores"], ["out"])], output="out"), offset=1)
    assert (loaded.facts.columns, loaded.facts.outputs.are) == (3, "probabilities")
    want = np.exp(scores(images())) / np.exp(scores(images())).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers(loaded, images()), want[:, 1:], rtol=1e-4)


def test_maps_are_no_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [node("Relu", ["c"], ["map"])], output="map")
    with pytest.raises(GraphError, match=r"'map' .* has shape \['N', 6, 8, 8\], not \[N, classes\]"):
        opened(path)
