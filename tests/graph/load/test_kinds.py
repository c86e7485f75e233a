"""ONNX files of every kind that people have: an FP32 graph that answers as the file does, or a refusal by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from tests.graph.load.files import (
    HOW,
    TensorProto,
    answers,
    helper,
    images,
    node,
    opened,
    plain,
    quantized,
    scores,
    tensor,
    trunk,
    write,
)
from toolkit.draft import draft
from toolkit.errors import GraphError
from toolkit.recipe import Preprocess, Recipe
from toolkit.reference.source import open_source


def test_nodes_need_no_order(tmp_path: Path) -> None:
    loaded = opened(write(tmp_path / "m.onnx", shuffle=True))
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ends", ["float16", "float32"])
def test_float16_inside(tmp_path: Path, ends: str) -> None:
    """The weights keep their values, and what was rounded between layers is not any more."""
    casts: dict[str, Any] = {"kind": TensorProto.FLOAT16}
    end = [node("Softmax", ["scores"], ["out"])]
    if ends == "float32":
        casts = {"start": [node("Cast", ["pixels"], ["image"], to=TensorProto.FLOAT16)]}
        end = [node("Softmax", ["scores"], ["s"]), node("Cast", ["s"], ["out"], to=TensorProto.FLOAT)]
    kind = TensorProto.FLOAT16 if ends == "float16" else TensorProto.FLOAT
    out = [helper.make_tensor_value_info("out", kind, ["N", 4])]
    path = write(tmp_path / "m.onnx", end, outputs=out, dtype=np.float16, **casts)
    loaded = opened(path)
    assert (loaded.facts.precision, loaded.facts.input_type, loaded.facts.outputs.are) == ("fp16", ends, "probabilities")
    assert all(value.dtype.name == "FLOAT" for value in (*loaded.graph.graph.inputs, *loaded.graph.graph.outputs) if value.dtype)
    assert not any(value.dtype.name == "FLOAT16" for value in loaded.graph.graph.initializers.values() if value.dtype)
    want = plain(path, images().astype(ends)).astype(np.float32)
    np.testing.assert_allclose(answers(loaded, images()), want, atol=5e-3)


def test_bfloat16_is_run_as_float32(tmp_path: Path) -> None:
    """ONNX Runtime's CPU cannot run it: the reference is the same file, widened."""
    out = [helper.make_tensor_value_info("scores", TensorProto.BFLOAT16, ["N", 4])]
    loaded = opened(write(tmp_path / "m.onnx", outputs=out, dtype=ml_dtypes.bfloat16, kind=TensorProto.BFLOAT16))
    assert loaded.original is not None
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=0.1, atol=0.1)
    assert any("bfloat16" in note for note in loaded.facts.notes)


def test_float16_attention_that_crashes_onnx_runtime_is_run_as_float32(tmp_path: Path) -> None:
    """Loading it as it is ends the process: ONNX Runtime 1.32 at its default level."""
    start = [
        node("Reshape", ["pixels", "rows"], ["tokens"]),  # [N, 3, 64]
        node("Transpose", ["tokens"], ["lne"], perm=[1, 0, 2]),
        node("MatMul", ["lne", "mix"], ["mixed"]),
        node("Transpose", ["mixed"], ["nle"], perm=[1, 0, 2]),
        node("Reshape", ["nle", "picture"], ["image"]),
    ]
    more = [tensor("rows", [-1, 3, 64], np.int64), tensor("picture", [-1, 3, 8, 8], np.int64)]
    more.append(tensor("mix", np.eye(64) * 2, np.float16))
    out = [helper.make_tensor_value_info("scores", TensorProto.FLOAT16, ["N", 4])]
    path = write(tmp_path / "m.onnx", start=start, more=more, outputs=out, dtype=np.float16, kind=TensorProto.FLOAT16)
    loaded = opened(path)
    assert loaded.original is not None
    assert any("cannot run the file as it is" in note for note in loaded.facts.notes)
    np.testing.assert_allclose(answers(loaded, images()), scores(2 * images()), rtol=1e-2, atol=1e-2)


def test_float64_is_run_as_float32(tmp_path: Path) -> None:
    out = [helper.make_tensor_value_info("scores", TensorProto.DOUBLE, ["N", 4])]
    path = write(tmp_path / "m.onnx", outputs=out, dtype=np.float64, kind=TensorProto.DOUBLE)
    np.testing.assert_allclose(answers(opened(path), images()), scores(images()), rtol=1e-4, atol=1e-5)


NORMALIZED = [
    node("Cast", ["pixels"], ["f"], to=TensorProto.FLOAT),
    node("Div", ["f", "k"], ["image"]),
]
FIRST_TRANSPOSED = [node("Transpose", ["pixels"], ["t"], perm=[0, 3, 1, 2]), node("Cast", ["t"], ["image"], to=TensorProto.FLOAT)]
WHOLE_FIRST = [
    node("Min", ["pixels", "most"], ["limited"]),
    node("Cast", ["limited"], ["image"], to=TensorProto.FLOAT),
]


@pytest.mark.parametrize("start", ["normalized", "transposed", "whole numbers first"])
def test_uint8_pixels(tmp_path: Path, start: str) -> None:
    nodes, nhwc = {"normalized": (NORMALIZED, 0), "transposed": (FIRST_TRANSPOSED, 1), "whole numbers first": (WHOLE_FIRST, 0)}[
        start
    ]
    more = [tensor("k", 255.0), tensor("most", 200, np.uint8)]
    shape = ["N", 8, 8, 3] if nhwc else ["N", 3, 8, 8]
    path = write(tmp_path / "m.onnx", kind=TensorProto.UINT8, start=nodes, more=more, shape=shape)
    how = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1, layout="NHWC" if nhwc else "NCHW")
    batch = images(whole=True).transpose(0, 2, 3, 1) if nhwc else images(whole=True)
    loaded = opened(path, how)
    assert loaded.facts.input_type == "uint8"
    np.testing.assert_allclose(answers(loaded, batch), plain(path, batch.astype(np.uint8)), rtol=1e-4, atol=1e-4)
    with pytest.raises(GraphError, match=r"pixels of 0 to 255 as they are.*scale = 1, mean = \[0, 0, 0\], std = \[1, 1, 1\]"):
        opened(path, Preprocess(size=(8, 8), layout=how.layout))


def test_a_weight_of_two_layers_becomes_two(tmp_path: Path) -> None:
    """BatchNorm folds into one of the two convolutions; the other keeps what it had."""
    random = np.random.default_rng(2)
    start = [
        node("Conv", ["pixels", "shared"], ["a"], pads=[1] * 4),
        node("BatchNormalization", ["a", "g", "b2", "mean", "var"], ["n"]),
        node("Conv", ["n", "shared"], ["image"], pads=[1] * 4),
    ]
    more = [tensor("shared", random.normal(size=(3, 3, 3, 3)))]
    more += [tensor(name, random.uniform(0.5, 2, 3)) for name in ("g", "b2", "mean", "var")]
    path = write(tmp_path / "m.onnx", start=start, more=more)
    np.testing.assert_allclose(answers(opened(path), images()), plain(path, images()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("opset", range(7, 24))
def test_every_opset(tmp_path: Path, opset: int) -> None:
    """Operators that changed on the way: Softmax's axis, Squeeze, ReduceMean, Clip, Pad, Dropout, BatchNormalization."""
    axes: dict[str, Any] = {"axes": [1]} if opset < 13 else {}
    extra = [] if opset < 13 else ["ax"]
    clip = node("Clip", ["x0"], ["x1"], min=-2.0, max=2.0) if opset < 11 else node("Clip", ["x0", "low", "high"], ["x1"])
    pad = node("Pad", ["x1"], ["x2"], pads=[0, 0, 1, 1, 0, 0, 1, 1]) if opset < 11 else node("Pad", ["x1", "pads"], ["x2"])
    mean = (
        node("ReduceMean", ["u"], ["out"], axes=[2], keepdims=0)
        if opset < 18
        else node("ReduceMean", ["u", "two"], ["out"], keepdims=0)
    )
    start = [
        node("BatchNormalization", ["pixels", "g0", "b0", "m0", "v0"], ["x0"]),
        clip,
        pad,
        node("Dropout", ["x2"], ["image"]),
    ]
    end = [
        node("Unsqueeze", ["scores", *extra], ["u1"], **axes),
        node("Squeeze", ["u1", *extra], ["u2"], **axes),
        node("Softmax", ["u2"], ["s"], axis=1),
        node("Reshape", ["s", "column"], ["u"]),
        mean,
    ]
    more = [tensor(name, np.linspace(0.5, 1.5, 3)) for name in ("g0", "m0", "v0")] + [tensor("b0", [0.1, 0.2, 0.3])]
    more += [
        tensor("column", [-1, 4, 1], np.int64),
        tensor("ax", [1], np.int64),
        tensor("two", [2], np.int64),
        tensor("pads", [0, 0, 1, 1] * 2, np.int64),
    ]
    more += [tensor("low", -2.0), tensor("high", 2.0)]
    nodes, weights = trunk(4)
    if opset < 9:
        nodes = [n if n.op_type != "Flatten" else node("Reshape", ["p", "flat"], ["features"]) for n in nodes]
    more.append(tensor("flat", [0, 6], np.int64))
    graph = helper.make_graph(
        [*start, *nodes, *end], "g", [helper.make_tensor_value_info("pixels", 1, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("out", 1, ["N", 4])], [*weights, *more],
    )  # fmt: skip
    if opset < 9:
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in graph.initializer)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    proto.ir_version = 3 if opset < 9 else 8 if opset < 22 else 10
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    loaded = opened(path)
    assert loaded.graph.opset_imports[""] >= 18
    np.testing.assert_allclose(answers(loaded, images()), plain(path, images()), rtol=1e-4, atol=1e-6)


def test_an_opset_of_the_future_is_said(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"has opset 999, and this onnx knows \d+ at most"):
        opened(write(tmp_path / "m.onnx", opset=999))


def test_if_of_squeeze_is_decided_by_the_shape(tmp_path: Path) -> None:
    """As torch writes `squeeze(2)`: If(Shape(x)[2] == 1) then Squeeze else Identity."""
    squeeze = helper.make_graph(
        [node("Squeeze", ["u", "ax"], ["then"])], "t", [], [helper.make_tensor_value_info("then", 1, None)]
    )
    keep = helper.make_graph([node("Identity", ["u"], ["else"])], "e", [], [helper.make_tensor_value_info("else", 1, None)])
    end = [
        node("Unsqueeze", ["scores", "ax"], ["u"]),
        node("Shape", ["u"], ["shape"]),
        node("Gather", ["shape", "at"], ["dim"]),
        node("Equal", ["dim", "one"], ["is_one"]),
        node("If", ["is_one"], ["out"], then_branch=squeeze, else_branch=keep),
    ]
    more = [tensor("ax", [2], np.int64), tensor("at", 2, np.int64), tensor("one", 1, np.int64)]
    loaded = opened(write(tmp_path / "m.onnx", end, output="out", more=more))
    assert "If" not in {n.op_type for n in loaded.graph.graph}
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=1e-5, atol=1e-6)
    end[2] = node("Gather", ["shape", "zero"], ["dim"])
    with pytest.raises(GraphError, match=r"If .* decides by the image or by the size of the batch"):
        opened(write(tmp_path / "m.onnx", end, output="out", more=[*more, tensor("zero", 0, np.int64)]))


def test_training_mode_is_taken_as_inference(tmp_path: Path) -> None:
    more = [tensor(name, [0.5, 1.0, 1.5]) for name in ("g", "b2", "mean", "var")]
    more += [tensor("ratio", 0.5), tensor("on", True, np.bool_)]
    start = [
        node("BatchNormalization", ["pixels", "g", "b2", "mean", "var"], ["n", "m2", "v2"], name="bn", training_mode=1),
        node("Dropout", ["n", "ratio", "on"], ["image"], name="drop"),
    ]
    loaded = opened(write(tmp_path / "m.onnx", start=start, more=more))
    assert any("training mode ('bn' and 1 more)" in note for note in loaded.facts.notes)
    g = np.array([0.5, 1.0, 1.5], np.float32).reshape(1, 3, 1, 1)
    want = (images() - g) / np.sqrt(g + 1e-5) * g + g
    np.testing.assert_allclose(answers(loaded, images()), scores(want), rtol=1e-4, atol=1e-4)
    assert loaded.original is not None
    assert "training_mode" not in loaded.original.graph[0].attributes


def test_a_file_that_is_quantized_already_stays_as_it_is(tmp_path: Path) -> None:
    path = quantized(tmp_path, "QDQ")
    loaded = opened(path)
    assert loaded.facts.precision == "int8"
    kinds = [n.op_type for n in loaded.graph.graph]
    assert kinds.count("DequantizeLinear") == [n.op_type for n in onnx.load(path).graph.node].count("DequantizeLinear")
    want = plain(path, images())
    np.testing.assert_allclose(answers(loaded, images()), want, atol=0.03 * float(np.abs(want).max()))


@pytest.mark.parametrize("form", ["QOperator", "dynamic"])
def test_integer_operators_are_refused_by_name(tmp_path: Path, form: str) -> None:
    with pytest.raises(GraphError, match=r"quantized already.*'.*'.*floating-point file"):
        opened(quantized(tmp_path, form))


def test_inputs_are_chosen_by_name_and_fed(tmp_path: Path) -> None:
    keep = helper.make_tensor_value_info("keep", 1, [])
    mask = helper.make_tensor_value_info("mask", 1, ["N", 3, 8, 8])
    start = [node("Mul", ["pixels", "keep"], ["k"]), node("Add", ["k", "mask"], ["image"])]
    path = write(tmp_path / "m.onnx", start=start, inputs=[keep, mask])
    with pytest.raises(GraphError, match=r"has 3 inputs.*keep \[\], mask \[\?, 3, 8, 8\].*reference\.feed"):
        opened(path)
    loaded = opened(path, input="pixels", feed={"keep": 2.0, "mask": 0.5})
    np.testing.assert_allclose(answers(loaded, images()), scores(images() * 2 + 0.5), rtol=1e-4, atol=1e-4)
    with pytest.raises(GraphError, match=r"no input 'photo'. Its inputs are pixels"):
        opened(path, input="photo")


def test_an_input_that_nothing_needs_is_left_out(tmp_path: Path) -> None:
    loaded = opened(write(tmp_path / "m.onnx", inputs=[helper.make_tensor_value_info("idle", 1, [1])]))
    assert loaded.original is not None
    assert [value.name for value in loaded.original.graph.inputs] == ["image"]


def test_constants_that_are_inputs_are_no_second_picture(tmp_path: Path) -> None:
    """tf2onnx leaves means of one value a channel among the inputs; `build` took the file for one without an image."""
    mean = helper.make_tensor_value_info("mean", 1, [1, 3, 1, 1])
    path = write(tmp_path / "m.onnx", start=[node("Sub", ["pixels", "mean"], ["image"])], inputs=[mean])
    assert draft(path).recipe.preprocess.size == (8, 8)
    loaded = opened(path, feed={"mean": [[[[0.0]], [[0.0]], [[0.0]]]]})
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=1e-5, atol=1e-6)


def test_a_second_picture_that_nothing_reads_is_not_asked_for(tmp_path: Path) -> None:
    mask = helper.make_tensor_value_info("mask", 1, ["N", 1, 8, 8])
    loaded = opened(write(tmp_path / "m.onnx", inputs=[mask]))
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", [True, False])
def test_the_largest_probability_alone_is_no_answer(tmp_path: Path, label: bool) -> None:
    """How sure a network is, beside its label or alone: read as one column, it was a yes or a no."""
    end = [node("Softmax", ["scores"], ["s"], axis=1), node("ReduceMax", ["s", "one"], ["sure"], keepdims=0)]
    outputs = [helper.make_tensor_value_info("sure", TensorProto.FLOAT, ["N"])]
    if label:
        end.append(node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    loaded = opened(write(tmp_path / "m.onnx", end, outputs=outputs, more=[tensor("one", [1], np.int64)]))
    assert (loaded.facts.output, loaded.facts.columns, loaded.facts.outputs.are) == ("s", 4, "probabilities")


def test_labels_are_not_the_output_that_scores_stand_beside(tmp_path: Path) -> None:
    """A classical model behind the network: of its outputs the scores are tried, and its operator is named."""
    end = [
        node("LinearClassifier", ["features"], ["label", "scored"], domain="ai.onnx.ml", classlabels_ints=[0, 1],
             coefficients=[1.0] * 12, intercepts=[0.0, 0.0], post_transform="PROBIT"),
    ]  # fmt: skip
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("scored", TensorProto.FLOAT, ["N", 2]),
    ]
    path = write(tmp_path / "m.onnx", end, outputs=outputs, domains=[("ai.onnx.ml", 3)])
    with pytest.raises(GraphError, match=r"LinearClassifier .* of the domain 'ai.onnx.ml'"):
        opened(path)


def test_an_input_of_encoded_pictures_is_told_what_is_taken(tmp_path: Path) -> None:
    encoded = [node("ImageDecoder", ["pixels"], ["image"])]
    with pytest.raises(GraphError, match=r"'pixels' .* has shape \[\?\], not four dimensions"):
        opened(write(tmp_path / "m.onnx", start=encoded, shape=["N"], kind=TensorProto.UINT8, opset=20))


def test_custom_operators_are_named_with_their_domain(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx",
        [node("Magic", ["scores"], ["out"], name="m1", domain="acme.ops")],
        output="out",
        domains=[("acme.ops", 1)],
    )
    with pytest.raises(GraphError, match=r"Magic 'm1' is a custom operator of the domain 'acme\.ops'"):
        opened(path)
    fused = node("FusedGemm", ["scores", "m2"], ["out"], name="f", domain="com.microsoft", activation="Relu")
    path = write(tmp_path / "m.onnx", [fused], output="out", domains=[("com.microsoft", 1)], more=[tensor("m2", np.eye(4))])
    with pytest.raises(GraphError, match=r"com\.microsoft.*optimizer writes such operators"):
        opened(path)
    with pytest.raises(GraphError, match=r"ONNX defines no operator Nonsense 'n'"):
        opened(write(tmp_path / "m.onnx", [node("Nonsense", ["scores"], ["out"], name="n")], output="out"))


def test_what_follows_the_named_tensor_may_be_custom(tmp_path: Path) -> None:
    end = [node("Magic", ["scores"], ["out"], domain="acme.ops")]
    loaded = opened(write(tmp_path / "m.onnx", end, output="out", domains=[("acme.ops", 1)]), output="scores")
    np.testing.assert_allclose(answers(loaded, images()), scores(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beside", [False, True])
def test_a_custom_operator_that_the_scores_do_not_need_is_left_out(tmp_path: Path, beside: bool) -> None:
    """Whether nothing reads it, or it is another output. ONNX Runtime cannot open the file as it is; its scores it can give."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("scores", "map")[: 1 + beside]]
    end = [node("Magic", ["features"], ["map"], domain="acme.ops")]
    path = write(tmp_path / "m.onnx", end, outputs=ends, domains=[("acme.ops", 1)])
    with open_source(Recipe.of(str(path), size=(8, 8), output="scores" if beside else None)).reference as reference:
        np.testing.assert_allclose(reference(images()), scores(images()), rtol=1e-4, atol=1e-6)


def test_functions_of_the_file_are_inlined(tmp_path: Path) -> None:
    twice = helper.make_function(
        "acme.ops", "Twice", ["x"], ["y"], [node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    path = write(
        tmp_path / "m.onnx", [node("Twice", ["scores"], ["out"], domain="acme.ops")], output="out", domains=[("acme.ops", 1)]
    )
    proto = onnx.load(path)
    proto.functions.append(twice)
    onnx.save(proto, path)
    np.testing.assert_allclose(answers(opened(path), images()), 2 * scores(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_is_taken_out(tmp_path: Path, batch: int) -> None:
    """A class token beside the image's, attention over heads, and a view that names the batch."""
    start = [
        node("Reshape", ["pixels", "rows"], ["tokens"]),  # [B, 3, 64]
        node("Concat", ["class", "tokens"], ["t"], axis=1),  # [B, 4, 64]
        node("Transpose", ["t"], ["lne"], perm=[1, 0, 2]),  # [4, B, 64]
        node("Reshape", ["lne", "heads"], ["h"]),  # [4, B * 2, 32]
        node("Transpose", ["h"], ["q"], perm=[1, 0, 2]),
        node("Transpose", ["h"], ["k"], perm=[1, 2, 0]),
        node("MatMul", ["q", "k"], ["qk"]),
        node("Softmax", ["qk"], ["a"], axis=-1),
        node("MatMul", ["a", "q"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[1, 0, 2]),  # [4, B * 2, 32]
        node("Reshape", ["back", "flat"], ["matrix"]),  # [4 * B, 64]
        node("Reshape", ["matrix", "apart"], ["apart_"]),  # [4, B, 64]
        node("Transpose", ["apart_"], ["nle"], perm=[1, 0, 2]),
        node("Slice", ["nle", "one", "four", "one"], ["without"]),
        node("Reshape", ["without", "picture"], ["image"], allowzero=1),
    ]
    shapes = {"rows": [batch, 3, 64], "heads": [4, 2 * batch, 32], "flat": [4 * batch, 64], "apart": [4, batch, 64]}
    shapes |= {"picture": [batch, 3, 8, 8], "one": [1], "four": [4]}
    more = [tensor(name, value, np.int64) for name, value in shapes.items()]
    more.append(tensor("class", np.random.default_rng(4).normal(size=(1, 1, 64)).repeat(batch, 0)))
    path = write(tmp_path / "m.onnx", start=start, more=more, shape=[batch, 3, 8, 8])
    if batch == 2:
        with pytest.raises(GraphError, match=r"batch of 2 is written into .* cannot be taken out"):
            opened(path)
        return
    loaded = opened(path)
    assert loaded.facts.batch == 1
    want = np.concatenate([plain(path, image[None]) for image in images()])
    np.testing.assert_allclose(answers(loaded, images()), want, rtol=1e-4, atol=1e-5)


def test_open_height_and_width_are_the_recipes(tmp_path: Path) -> None:
    loaded = opened(write(tmp_path / "m.onnx", shape=["N", 3, "H", None]))
    assert str(loaded.graph.graph.inputs[0].shape) == "[N,3,8,8]"


def test_external_data_counts_in_the_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = opened(path)
    np.testing.assert_allclose(answers(before, images()), scores(images()), rtol=1e-5, atol=1e-6)
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "weights.bin").write_bytes(bytes(data))
    assert opened(path).facts.sha256 != before.facts.sha256
    (tmp_path / "weights.bin").write_bytes(bytes(data[:100]))
    with pytest.raises(GraphError, match=r"tensor 'w' .* needs 648 bytes, and weights\.bin does not hold them"):
        opened(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(GraphError, match=r"tensor 'w' .* is stored in weights\.bin, which does not exist"):
        opened(path)


def test_external_data_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 648)
    (tmp_path / "model").mkdir()
    path = write(tmp_path / "model/m.onnx")
    proto = onnx.load(path)
    for location in ("../secret", str(tmp_path / "secret"), "link"):
        tensor_ = proto.graph.initializer[0]
        tensor_.ClearField("raw_data")
        del tensor_.external_data[:]
        tensor_.data_location = TensorProto.EXTERNAL
        tensor_.external_data.add(key="location", value=location)
        path.write_bytes(proto.SerializeToString())
        if location == "link":
            (tmp_path / "model/link").symlink_to(tmp_path / "secret")
        with pytest.raises(GraphError, match="outside the folder"):
            opened(path)


def test_links_of_a_cache_of_models_are_followed(tmp_path: Path) -> None:
    """Hugging Face's: the file and its data are links to two files of one folder, named by their hashes."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    proto = onnx.load(write(tmp_path / "m.onnx"))
    onnx.save(proto, tmp_path / "e.onnx", save_as_external_data=True, location="m.onnx_data", size_threshold=0)
    for name, blob in (("e.onnx", "f00d"), ("m.onnx_data", "beef")):
        (tmp_path / name).rename(blobs / blob)
    (snapshot / "m.onnx").symlink_to("../../../blobs/f00d")
    (snapshot / "m.onnx_data").symlink_to("../../../blobs/beef")
    np.testing.assert_allclose(answers(opened(snapshot / "m.onnx"), images()), scores(images()), rtol=1e-5, atol=1e-6)


def test_the_layout_that_would_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r'takes \[8, 8, 3\].*makes \[3, 8, 8\].*`layout = "NHWC"`'):
        opened(
            write(tmp_path / "m.onnx", start=[FIRST_TRANSPOSED[0], node("Identity", ["t"], ["image"])], shape=["N", 8, 8, 3]),
            HOW,
        )


def test_what_answers_with_boxes_or_with_several_heads_is_told_what_to_do(tmp_path: Path) -> None:
    """A detector's [N, 22, 1029] is no classifier's; of several heads the message names one to take."""
    end = [node("Unsqueeze", ["scores", "axis"], ["u"]), node("Expand", ["u", "dims"], ["boxes"])]
    more = [tensor("axis", [1], np.int64), tensor("dims", [1, 5, 4], np.int64)]
    path = write(tmp_path / "m.onnx", end, output="boxes", more=more)
    with pytest.raises(
        GraphError, match=r"has shape \['N', 5, 4\], not \[N, classes\]\. Detectors.*have such outputs.*reference\.output"
    ):
        opened(path)
    heads = [node("Relu", ["scores"], ["digit_0"]), node("Neg", ["scores"], ["digit_1"])]
    shapes = {"digit_0": ["N", 4], "digit_1": [1, 4]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    path = write(tmp_path / "m.onnx", heads, outputs=outputs)
    with pytest.raises(GraphError, match=r"2 outputs: digit_0 \['N', 4\], digit_1 \[1, 4\]\..*--set output=\"digit_0\""):
        opened(path)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("pooled", [True, False])
def test_a_squeeze_of_everything_keeps_a_batch_of_one_image(tmp_path: Path, classes: int, pooled: bool) -> None:
    """`model(x).squeeze()`: one image alone is answered with [classes], and several with [N, classes]."""
    axes = tensor("axes", [2, 3], np.int64)
    end = [node("Unsqueeze", ["scores", "axes"], ["wide"]), node("Squeeze", ["wide"], ["out"])]
    end = end if pooled else [node("Squeeze", ["scores"], ["out"])]
    loaded = opened(write(tmp_path / "m.onnx", end, classes=classes, output="out", more=[axes]))
    assert loaded.facts.columns == classes
    assert loaded.graph.graph.outputs[0].name == "out"
    for count in (1, 3):
        np.testing.assert_allclose(answers(loaded, images(count)), scores(images(count), classes), rtol=1e-4, atol=1e-6)


def test_the_reference_of_a_squeeze_of_everything_answers_one_image_with_every_class(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [node("Squeeze", ["scores"], ["out"])], output="out")
    recipe = Recipe.of(path, size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
    with open_source(recipe).reference as reference:
        for count in (1, 3):
            np.testing.assert_allclose(reference(images(count)), scores(images(count)), rtol=1e-4, atol=1e-6)


def test_of_several_outputs_the_one_that_no_other_reads_is_suggested(tmp_path: Path) -> None:
    """Features beside the scores: the command of the refusal took them for 6 classes."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("features", "scores")]
    with pytest.raises(GraphError, match=r'2 outputs: features, scores\..*--set output="scores"'):
        opened(write(tmp_path / "m.onnx", outputs=ends))


def test_features_that_no_layer_makes_are_not_the_output_that_is_suggested(tmp_path: Path) -> None:
    """Of outputs that nothing reads, the one that a last layer makes."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("embedding", "scores")]
    path = write(tmp_path / "m.onnx", [node("Tanh", ["features"], ["embedding"])], outputs=ends)
    with pytest.raises(GraphError, match=r'2 outputs: embedding, scores\..*--set output="scores"'):
        opened(path)


def test_a_graph_needs_no_name(tmp_path: Path) -> None:
    proto = onnx.load(write(tmp_path / "m.onnx"))
    proto.graph.name = ""
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    np.testing.assert_allclose(answers(opened(tmp_path / "m.onnx"), images()), scores(images()), rtol=1e-5, atol=1e-6)


def test_an_ir_version_of_the_future_is_said(tmp_path: Path) -> None:
    proto = onnx.load(write(tmp_path / "m.onnx"))
    proto.ir_version = onnx.IR_VERSION + 1
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(GraphError, match=rf"IR version {onnx.IR_VERSION + 1}, .*up to {onnx.IR_VERSION}\. Update onnx"):
        opened(tmp_path / "m.onnx")


def test_four_channels_are_no_color(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"takes \[\?, 4, 8, 8\]: no channel for each of red, green and blue.*Wrap"):
        opened(write(tmp_path / "m.onnx", start=[node("Identity", ["pixels"], ["image"])], shape=["N", 4, 8, 8]))


METADATA = {
    "names": "{0: 'ant', 1: 'bee', 2: 'cat', 3: 'dog'}",
    "character": "ant\nbee\ncat\ndog",
    "labels": '["ant", "bee", "cat", "dog"]',
    "classes": "ant, bee, cat, dog",
    "id2label": '{"0": "ant", "1": "bee", "2": "cat", "3": "dog"}',
}


@pytest.mark.parametrize("key", METADATA)
def test_class_names_in_the_metadata_are_said_not_to_be_used(tmp_path: Path, key: str) -> None:
    proto = onnx.load(write(tmp_path / "m.onnx"))
    onnx.helper.set_model_props(proto, {key: METADATA[key], "stride": "32"})
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    said = f"the class names in the file (`{key}`: ant, bee, cat, dog) are not used: list them in `reference.classes`"
    notes = open_source(Recipe.of(tmp_path / "m.onnx", size=(8, 8))).reference.manifest.notes
    assert any(note.startswith(said) for note in notes)
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    told = open_source(Recipe.of(tmp_path / "m.onnx", size=(8, 8), classes=tmp_path / "names.txt")).reference.manifest.notes
    assert not any("class names" in note for note in told)


def test_class_names_of_a_dictionary_at_the_end_are_said_too(tmp_path: Path) -> None:
    """As Azure's Custom Vision ends its classifiers."""
    row = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    ends = [helper.make_value_info("loss", helper.make_sequence_type_proto(row))]
    zipped = node("ZipMap", ["s"], ["loss"], domain="ai.onnx.ml", classlabels_strings=["ant", "bee", "cat", "dog"])
    end = [node("Softmax", ["scores"], ["s"]), zipped]
    facts = opened(write(tmp_path / "m.onnx", end, outputs=ends, domains=[("ai.onnx.ml", 3)])).facts
    assert facts.labels is not None and "(`ZipMap`: ant, bee, cat, dog) are not used" in facts.labels


@pytest.mark.parametrize(("data", "said"), [(b"<!DOCTYPE html><html>", "a web page"), (b"PK\x03\x04zip", "a zip archive")])
def test_a_glance_tells_what_is_no_onnx_file(tmp_path: Path, data: bytes, said: str) -> None:
    """`build` looks at a file before it opens it, and said that its wire format was corrupt."""
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(GraphError, match=f"m.onnx is {said}"):
        draft(tmp_path / "m.onnx")


def test_a_batch_written_into_a_file_with_fp8_inside_can_be_taken_out(tmp_path: Path) -> None:
    """ONNX Runtime alone drops the Relu before float8: roots of what is below 0 are NaN, and the file was refused."""
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    end = [
        node("Relu", ["scores"], ["positive"]),
        node("QuantizeLinear", ["positive", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Sqrt", ["d"], ["root"]),
        node("MatMul", ["root", "last"], ["out"]),
    ]
    last = np.random.default_rng(5).normal(size=(4, 4))
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [4, 4])]
    more = [tensor("s", 0.01), zero, tensor("last", last)]
    path = write(tmp_path / "m.onnx", end, opset=19, shape=(4, 3, 8, 8), more=more, outputs=out)
    loaded = opened(path)
    assert (loaded.facts.precision, loaded.facts.batch, loaded.facts.columns) == ("fp8", 4, 4)
    assert np.isfinite(answers(loaded, images())).all()
