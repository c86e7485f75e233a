"""Every example runs as its own first lines say, on an engine made here."""

import importlib.util
import io
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from toolkit.disk.files import sha256
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.types import TensorSpec

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The brightest channel wins: mean over the image, times the identity."""
    folder = tmp_path_factory.mktemp("engine")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32), "weights")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weights]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    Manifest(
        name="tiny",
        target="cpu",
        file="model.onnx",
        precision="fp32",
        inputs=(TensorSpec(name="images", dtype="float32", shape=("N", 3, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 3)),),
        profiles=(Profile(min=1, opt=1, max=8),),
        preprocess=Preprocess(size=(8, 8)),
        classes=("red", "green", "blue"),
        hashes={"file": sha256(folder / "model.onnx")},
        settings={"threads": 1},
    ).write(folder)
    return folder


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_classify(engine, tmp_path):
    for color in ("red", "blue"):
        Image.new("RGB", (20, 20), color).save(tmp_path / f"{color}.png")
    done = run("classify.py", engine, tmp_path / "red.png", tmp_path / "blue.png")
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["red", "blue"], done.stderr
    array, image = run("classify.py", engine).stdout.splitlines()
    assert (array.split()[0], image.split()[0]) == ("ndarray", "Image")
    assert array.split()[1:] == image.split()[1:]


def test_threads(engine):
    done = run("threads.py", engine, 3)
    assert "the same answers as alone" in done.stdout, done.stderr


def test_torch_tensors(engine):
    pytest.importorskip("torch")
    done = run("torch_tensors.py", engine)
    assert "cpu tensor -> logits [5, 3]" in done.stdout, done.stderr


def test_triton_client(engine, tmp_path):
    """Against `toolkit serve`; tests/handoff/test_tritonserver.py runs it against Triton."""
    for name in ("uvicorn", "httptools", "tritonclient", "geventhttpclient"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: [serve], [triton]")
    from tests.serve.serving import Server

    for color in ("red", "blue"):
        Image.new("RGB", (20, 20), color).save(tmp_path / f"{color}.png")
    with Server(engine, "--max-batch", "8", "--max-wait-ms", "1") as server:
        done = run("triton_client.py", server.address, engine, tmp_path / "red.png", tmp_path / "blue.png")
        assert [line.split()[1] for line in done.stdout.splitlines()] == ["red", "blue"], done.stderr
        server.stop()
    done = run("triton_client.py", server.address, engine, tmp_path / "red.png")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr


def test_notebook(tmp_path):
    """The page of Python, as it stands."""
    pytest.importorskip("torch")
    done = run("notebook.py", tmp_path)
    assert "tiny-int8: accepted" in done.stdout, done.stderr
    assert done.stdout.endswith("logits [2, 10]\n")


def test_pycuda(engine):
    done = run("pycuda_app.py", engine)
    if done.returncode:
        assert done.stderr.startswith("PyCUDA is not here"), done.stderr


@pytest.mark.parametrize("name", ["classify.py", "threads.py", "page.py"])
def test_an_engine_that_is_not_there_is_one_line(name, tmp_path):
    done = run(name, tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.fixture(scope="module")
def pixels(engine, tmp_path_factory):
    """The same engine, which takes pixels: a Cast and a Transpose before it."""
    folder = tmp_path_factory.mktemp("pixels")
    model = onnx.load(engine / "model.onnx")
    model.graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node.insert(1, helper.make_node("Transpose", ["floats"], ["images"], perm=[0, 3, 1, 2]))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 8, 3]))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    manifest = Manifest.read(engine)
    msgspec.structs.replace(
        manifest,
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", 8, 8, 3)),),
        preprocess=msgspec.structs.replace(manifest.preprocess, inside=True),
        hashes={"file": sha256(folder / "model.onnx")},
    ).write(folder)
    return folder


@pytest.mark.parametrize("name", ["classify.py", "threads.py", "torch_tensors.py"])
def test_engines_that_take_pixels(pixels, name):
    if name.startswith("torch"):
        pytest.importorskip("torch")
    done = run(name, pixels)
    assert done.returncode == 0, done.stderr
    assert "OTHER" not in done.stdout


def test_folder(engine, tmp_path):
    for color in ("blue", "green", "red"):
        (tmp_path / "in" / color).mkdir(parents=True)
        for i in range(30):  # several batches
            Image.new("RGB", (20, 20), color).save(tmp_path / "in" / color / f"{i:02}.png")
    (tmp_path / "in" / "green" / "10.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("no picture either")
    done = run("folder.py", engine, tmp_path / "in")
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()]
    assert rows[0] == ["file", "label", "probability"]
    assert len(rows) == 1 + 89
    assert all(Path(file).parent.name == label for file, label, _ in rows[1:])
    bad, summary = done.stderr.splitlines()
    assert str(tmp_path / "in" / "green" / "10.png") in bad
    assert summary.startswith("89 pictures answered, 1 could not be read; ")


def test_video(engine, tmp_path):
    cv2 = pytest.importorskip("cv2")
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert film.isOpened()
    for bgr in [(0, 0, 255)] * 20 + [(255, 0, 0)] * 20:
        film.write(np.full((48, 64, 3), bgr, np.uint8))
    film.release()
    done = run("video.py", engine, tmp_path / "film.avi")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[2] for line in lines[:2]] == ["red", "blue"]
    assert [line[0] for line in lines[:2]] == ["0.00", "2.00"]
    assert lines[2] == ["40", "frames", "answered"]
    (tmp_path / "no.avi").write_bytes(b"no film")
    broken = run("video.py", engine, tmp_path / "no.avi")
    assert broken.returncode == 1
    assert "has no frame" in broken.stderr


@contextmanager
def serving(name, engine):
    """An example that serves, on a port of its own, until the block ends; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / name), str(engine), str(port)]
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell in the background has it ignored
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=hearing)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise AssertionError(process.stdout.read())
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
            process.stdout.close()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


def post(address, data):
    try:
        with urlopen(Request(address, data=data, method="POST"), timeout=30) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        return error.code, json.load(error)


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_fastapi(engine):
    pytest.importorskip("fastapi")
    with serving("fastapi_app.py", engine) as address:
        with urlopen(f"{address}/health", timeout=30) as reply:
            assert json.load(reply) == {"engine": "tiny"}
        code, answers = post(f"{address}/classify?top=2", png("blue"))
        assert (code, len(answers), answers[0]["label"]) == (200, 2, "blue")
        code, refusal = post(f"{address}/classify", b"no picture")
        assert (code, "cannot be read as an image" in refusal["detail"]) == (400, True)
        with ThreadPoolExecutor(4) as pool:
            colors = ["red", "green", "blue"] * 4
            found = list(pool.map(lambda color: post(f"{address}/classify", png(color))[1][0]["label"], colors))
        assert found == colors


def test_page(pixels):
    with serving("page.py", pixels) as address:
        with urlopen(address, timeout=30) as reply:
            page = reply.read().decode()
        assert "<title>tiny</title>" in page
        assert "http" not in page.replace(address, "")  # nothing from elsewhere
        code, answers = post(f"{address}/classify", png("red"))
        assert (code, answers[0]["label"]) == (200, "red")
        assert post(f"{address}/classify", b"no picture")[0] == 400
        assert post(f"{address}/elsewhere", png("red"))[0] == 400
        assert post(f"{address}/classify", png("blue"))[1][0]["label"] == "blue"
