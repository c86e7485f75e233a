"""Whether all weights of an ONNX file are in it, wherever in the file a tensor may stand."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from toolkit.onnxfile import is_whole

NAME = "location"  # the very word by which another file is named


def elsewhere() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    return tensor


def model(*tensors: TensorProto) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in (NAME, "y")]
    node = helper.make_node("Identity", [NAME], ["y"], name=NAME, doc_string=NAME)
    return helper.make_model(helper.make_graph([node], NAME, ends[:1], ends[1:], list(tensors)))


def everywhere() -> Iterator[onnx.ModelProto]:
    """The tensor at each place that ONNX has for one."""
    yield model(elsewhere())
    inner, sparse = model(elsewhere()).graph, onnx.SparseTensorProto(values=elsewhere())
    for field, value in (("t", elsewhere()), ("g", inner), ("sparse_tensor", sparse)):
        found = model()
        getattr(found.graph.node[0].attribute.add(name="a"), field).CopyFrom(value)
        yield found
    for field, value in (("tensors", elsewhere()), ("graphs", inner), ("sparse_tensors", sparse)):
        found = model()
        getattr(found.graph.node[0].attribute.add(name="a"), field).append(value)
        yield found
    for sparse in (onnx.SparseTensorProto(values=elsewhere()), onnx.SparseTensorProto(indices=elsewhere())):
        found = model()
        found.graph.sparse_initializer.append(sparse)
        yield found
    found = model()
    found.functions.add(name="f").node.add().attribute.add(name="a").t.CopyFrom(elsewhere())
    yield found
    found = model()
    found.functions.add(name="f").attribute_proto.add(name="a").t.CopyFrom(elsewhere())
    yield found
    found = model()
    found.training_info.add().algorithm.CopyFrom(inner)
    yield found


@pytest.mark.parametrize("proto", list(everywhere()), ids=range(12))
def test_weights_in_another_file_are_seen(proto: onnx.ModelProto) -> None:
    assert not is_whole(proto.SerializeToString())


def test_names_and_weights_that_only_look_so_are_not() -> None:
    looks = numpy_helper.from_array(np.frombuffer(elsewhere().SerializeToString(), np.uint8), NAME)
    assert is_whole(model(looks).SerializeToString())
    assert is_whole(b"location")
    assert is_whole(b"")


def test_another_spelling_of_the_same_numbers_is_seen() -> None:
    """Protobuf takes numbers with idle bytes, and drops what a tag has beyond 32 bits."""
    tensor = elsewhere().SerializeToString()
    graph = b"\xaa\x80\x80\x80\x10" + bytes([len(tensor) | 0x80, 0]) + tensor  # field 5
    data = b"\xba\x00" + bytes([len(graph) | 0x80, 0x80, 0]) + graph  # field 7
    assert not is_whole(data)


def test_mutants_are_seen_as_protobuf_sees_them() -> None:
    proto = list(everywhere())
    seen = 0
    for seed in range(3000):
        dice, data = random.Random(seed), bytearray(proto[seed % len(proto)].SerializeToString())
        for _ in range(3):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            parsed = onnx.ModelProto.FromString(bytes(data))
        except DecodeError:
            continue
        if any(entry.key == NAME for tensor in parsed.graph.initializer for entry in tensor.external_data):
            seen += 1
            assert not is_whole(bytes(data)), seed
    assert seen > 10
