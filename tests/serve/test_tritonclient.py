"""The real `tritonclient`, unchanged, against a real server: each answer compared with the engine's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.address, concurrency=16) as made:
        yield made


def tensor(images, binary=True):
    given = triton.InferInput("input", list(images.shape), "FP32")
    given.set_data_from_numpy(images, binary_data=binary)
    return [given]


def outputs(**how):
    return [triton.InferRequestedOutput("logits", **how)]


def test_it_finds_out_all_that_it_asks_for(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("net")
    assert client.is_model_ready("net", "3")
    assert {"binary_tensor_data", "classification"} <= set(client.get_server_metadata()["extensions"])
    found = client.get_model_metadata("net")
    assert found["versions"] == ["1", "3"]
    assert found["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
    assert found["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
    config = client.get_model_config("net")
    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 1000
    assert config["parameters"]["precision"]["string_value"] == "fp32"
    index = client.get_model_repository_index()
    assert [(m["name"], m["version"], m["state"]) for m in index] == [
        ("net", "1", "READY"), ("net", "3", "READY"), ("half", "1", "READY"),
    ]  # fmt: skip


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_answers_are_the_engines_own_bit_for_bit(client, images, offline, binary_in, binary_out, count):
    how = None if binary_out is None else outputs(binary_data=binary_out)
    found = client.infer("net", tensor(images[:count], binary_in), outputs=how, request_id="a-1")
    np.testing.assert_array_equal(found.as_numpy("logits"), offline["fp32"][:count])
    assert found.as_numpy("logits").dtype == np.float32
    answer = found.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("net", "3", "a-1")


@pytest.mark.parametrize(
    ("name", "version", "kind"), [("net", "1", "fp16"), ("net", "3", "fp32"), ("net", "", "fp32"), ("half", "", "fp16")]
)
def test_each_version_is_its_own_engine_and_none_is_the_latest(client, images, offline, name, version, kind):
    found = client.infer(name, tensor(images[:2]), model_version=version)
    np.testing.assert_array_equal(found.as_numpy("logits"), offline[kind][:2])


def test_sixteen_at_once_each_get_their_own(server, images, offline):
    def ask(i):
        right = []
        with triton.InferenceServerClient(server.address) as client:  # one a thread, as its own documentation asks for
            for turn in range(25):
                start, count = (i + 7 * turn) % 60, 1 + turn % 4
                found = client.infer("net", tensor(images[start : start + count], turn % 3 != 0)).as_numpy("logits")
                right.append(np.array_equal(found, offline["fp32"][start : start + count]))
        return all(right)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(16)))


def test_async_infer(client, images, offline):
    asked = [client.async_infer("net", tensor(images[i : i + 1])) for i in range(32)]
    found = np.concatenate([one.get_result().as_numpy("logits") for one in asked])
    np.testing.assert_array_equal(found, offline["fp32"][:32])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_requests(client, images, offline, coding):
    found = client.infer("net", tensor(images[:4]), request_compression_algorithm=coding, response_compression_algorithm=coding)
    np.testing.assert_array_equal(found.as_numpy("logits"), offline["fp32"][:4])


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_value_index_and_label(client, images, offline, binary):
    found = client.infer("net", tensor(images[:3]), outputs=outputs(class_count=2, binary_data=binary)).as_numpy("logits")
    assert found.shape == (3, 2)
    for row, logits in zip(found, offline["fp32"], strict=False):
        for text, index in zip(row, np.argsort(-logits, kind="stable"), strict=False):
            value, place, label = (text.decode() if isinstance(text, bytes) else text).split(":")
            assert (np.float32(value), int(place)) == (logits[index], index)
            assert label == NAMES[index]


NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def test_more_classes_than_there_are_gives_all(client, images):
    assert client.infer("net", tensor(images[:1]), outputs=outputs(class_count=99)).as_numpy("logits").shape == (1, 10)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda c, x: c.infer("nobody", tensor(x)), "there is no model 'nobody'"),
        (lambda c, x: c.infer("net", tensor(x), model_version="2"), "the model 'net' has no version '2'"),
        (lambda c, x: c.infer("net", tensor(x), outputs=[triton.InferRequestedOutput("loud")]), "no output 'loud'; it answers"),
        (lambda c, x: c.infer("net", tensor(x[:, :, :5])), r"has shape \[-1, 1, 28, 28\], not \[2, 1, 5, 28\]"),
        (lambda c, x: c.infer("net", tensor(x[:0])), "a batch of 0 images"),
        (lambda c, x: c.infer("net", tensor(x), sequence_id=7), "keeps no state"),
        (lambda c, x: c.infer("net", tensor(x) * 2), "takes one input, 'input', not 2"),
        (lambda c, x: c.register_system_shared_memory("a", "/etc/passwd", 10), "nothing at this path"),
        (lambda c, x: c.load_model("net"), "start the server with --admin"),
        (lambda c, x: c.get_model_metadata("nobody"), "there is no model"),
    ],
)  # fmt: skip
def test_errors_arrive_as_the_clients_own(client, server, images, ask, words):
    with pytest.raises(InferenceServerException, match=words):
        ask(client, images[:2])
    assert server.alive()


@pytest.mark.parametrize(
    ("name", "datatype", "values"), [("pixels", "FP32", np.float32), ("input", "FP64", np.float64), ("input", "INT8", np.int8)]
)
def test_a_wrong_name_or_type_is_named(client, images, name, datatype, values):
    given = triton.InferInput(name, [1, 1, 28, 28], datatype)
    given.set_data_from_numpy(images[:1].astype(values))
    words = "no input 'pixels'; it takes 'input'" if name == "pixels" else f"'input' is FP32, not {datatype}"
    with pytest.raises(InferenceServerException, match=words):
        client.infer("net", [given])


def test_statistics_count_what_was_asked(client, images):
    def counts():
        [found] = client.get_inference_statistics("half")["model_stats"]
        return found["inference_count"], found["execution_count"], found["inference_stats"]["success"]["count"]

    before = counts()
    for _ in range(3):
        client.infer("half", tensor(images[:5]))
    assert np.subtract(counts(), before).tolist() == [15, 3, 3]
    assert len(client.get_inference_statistics()["model_stats"]) == 3


def test_a_requests_own_timeout(client, images):
    assert client.infer("net", tensor(images[:1]), timeout=30_000_000).as_numpy("logits").shape == (1, 10)
    with pytest.raises(InferenceServerException, match="own timeout"):
        client.infer("net", tensor(np.repeat(images, 40, axis=0)), timeout=1)
