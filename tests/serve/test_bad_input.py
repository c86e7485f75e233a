"""What no client should send: the protocol's own error, the process alive, nothing kept."""

from __future__ import annotations

import io
import json
import os
import select
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import QUICK
from tests.serve.serving import PATIENCE, Server, infer, logits_of

INFER = "/v2/models/net/infer"


@pytest.fixture(scope="module")
def server(engines):
    """Smaller limits than usual, so that to go beyond them is quick."""
    words = ("--body-mib", "2", "--pixels", "1000000", "--seconds", "3")
    with Server(f"net={engines / 'fp32'}", *QUICK, *words) as running:
        yield running
        assert running.stop() == 0
        assert [entry for entry in running.log if "trace" in entry] == [], "something failed that nobody had thought of"


@pytest.fixture(autouse=True)
def lives_on(server, images, offline):
    yield
    reply = server.ask("POST", INFER, infer(images[:2]))
    np.testing.assert_array_equal(logits_of(reply), offline["fp32"][:2])


def picture(size=(30, 30), form="PNG"):
    file = io.BytesIO()
    Image.new("L", size, 100).save(file, form)
    return file.getvalue()


def bomb(width, height):
    """A PNG whose head says so many pixels, and whose data are few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def tensor(**changes):
    whole = {"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": [0.5] * 784} | changes
    return {key: value for key, value in whole.items() if value is not None}


def request(*inputs, **more):
    return json.dumps({"inputs": inputs or [tensor()], **more}).encode()


BINARY = {"parameters": {"binary_data_size": 3136}, "data": None}
BAD = {
    "not JSON": (b"{", 400, "not an infer request"),
    "no UTF-8": (b"\xff\xfe", 400, "not an infer request"),
    "nothing": (b"", 400, "not an infer request"),
    "another form": (b"[]", 400, "not an infer request"),
    "no inputs": (b'{"inputs": []}', 400, "takes one input"),
    "two inputs": (request(tensor(), tensor()), 400, "takes one input"),
    "a name": (request(tensor(name="pixels")), 400, "no input 'pixels'"),
    "a path as a name": (request(tensor(name="../../etc/passwd")), 400, "no input '../../etc/passwd'"),
    "a datatype": (request(tensor(datatype="INT8")), 400, "is FP32, not INT8"),
    "no datatype": (request(tensor(datatype=None)), 400, "datatype"),
    "a batch of 0": (request(tensor(shape=[0, 1, 28, 28], data=[])), 400, "a batch of 0 images"),
    "a batch below 0": (request(tensor(shape=[-1, 1, 28, 28])), 400, "not [-1, 1, 28, 28]"),
    "a huge batch": (request(tensor(shape=[2**62, 1, 28, 28])), 400, "a batch of more than 16777216 images"),
    "a size beyond any integer": (request(tensor(shape=[10**40, 1, 28, 28])), 400, ""),
    "a shape": (request(tensor(shape=[1, 28, 28, 1])), 400, "has shape [-1, 1, 28, 28], not [1, 28, 28, 1]"),
    "fewer axes": (request(tensor(shape=[784])), 400, "not [784]"),
    "too few values": (request(tensor(data=[0.5])), 400, "has 1 values"),
    "nested otherwise": (request(tensor(data=[[0.5] * 784])), 400, "in shape [1, 784]"),
    "ragged": (request(tensor(data=[[0.5] * 2, [0.5]])), 400, "cannot be taken"),
    "words": (request(tensor(data=["0.5"] * 784)), 400, "Expected `float`, got `str`"),
    "truths": (request(tensor(data=[True] * 784)), 400, "Expected `float`, got `bool`"),
    "no list": (request(tensor(data=0.5)), 400, "is not a list"),
    "null": (request(tensor(data=[None] * 784)), 400, "got `null`"),
    "too large for FP32": (request(tensor(data=[1e39] * 784)), 400, "beyond what FP32 holds"),
    "NaN": (request(tensor(data=[float("nan")] * 784)), 400, "not an infer request"),
    "nested 100,000 deep": (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested too deep"),
    "data nested deep": (request(tensor(data=json.loads("[" * 20 + "]" * 20))), 400, "nested 20 deep"),
    "no data": (request(tensor(data=None)), 400, "neither `data` nor `binary_data_size`"),
    "binary that is not there": (request(tensor(**BINARY)), 400, "0 follow the JSON"),
    "both": (request(tensor(parameters={"binary_data_size": 3136})), 400, "both"),
    "shared memory": (request(tensor(data=None, parameters={"shared_memory_region": "a"})), 400, "reads no shared memory"),
    "an output": (request(outputs=[{"name": "loud"}]), 400, "no output 'loud'"),
    "an output twice": (request(outputs=[{"name": "logits"}] * 2), 400, "asked for twice"),
    "-3 classes": (request(outputs=[{"name": "logits", "parameters": {"classification": -3}}]), 400, "a number of classes"),
    "half a class": (request(outputs=[{"name": "logits", "parameters": {"classification": 0.5}}]), 400, "a number of classes"),
    "binary data of 7": (request(outputs=[{"name": "logits", "parameters": {"binary_data": 7}}]), 400, "true or false"),
    "parameters with parts": (request(parameters={"a": {"b": 1}}), 400, "not an infer request"),
    "a timeout of words": (request(parameters={"timeout": "soon"}), 400, "microseconds"),
    "a timeout beyond any clock": (request(parameters={"timeout": 10**400}), 400, "microseconds"),
    "a batch beyond counting": (request(tensor(shape=[10**4290, 1, 28, 28], **BINARY)), 400, "a batch of more than"),
    "a sequence": (request(parameters={"sequence_id": 3}), 400, "keeps no state"),
    "a body too large": (b" " * (2 << 20) + b"{}", 413, "larger than the 2,097,152 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_infer_requests(server, name):
    body, status, words = BAD[name]
    reply = server.ask("POST", INFER, body)
    assert (reply.status, words in reply.error) == (status, True), reply.error
    assert len(reply.error) < 1100


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999", "9" * 400, ""])
def test_a_header_length_that_cannot_be(server, length):
    reply = server.ask("POST", INFER, request(), {"Inference-Header-Content-Length": length})
    assert reply.status == 400
    assert "Inference-Header-Content-Length" in reply.error


@pytest.mark.parametrize("missing", [1, 3136])
def test_binary_data_cut_short(server, missing):
    head = request(tensor(**BINARY))
    body = head + b"\0" * (3136 - missing)
    reply = server.ask("POST", INFER, body, {"Inference-Header-Content-Length": str(len(head))})
    assert (reply.status, f"{3136 - missing} follow the JSON" in reply.error) == (400, True)


def test_binary_nan_answers_as_binary_and_not_as_json(server, images):
    head = request(tensor(**BINARY))
    body = head + np.full(784, np.nan, "<f4").tobytes()
    reply = server.ask("POST", INFER, body, {"Inference-Header-Content-Length": str(len(head))})
    assert reply.status == 500
    assert "NaN or infinity, which JSON cannot carry" in reply.error
    head = request(tensor(**BINARY), parameters={"binary_data_output": True})
    body = head + np.full(784, np.nan, "<f4").tobytes()
    assert server.ask("POST", INFER, body, {"Inference-Header-Content-Length": str(len(head))}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404), ("GET", "/v2/models/none", 404), ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/net/versions/7/infer", 404), ("POST", "/v2/models/net/versions//infer", 404),
        ("POST", "/v2/models/net/versions/%00/infer", 404), ("GET", "/v2/models/net/nothing", 404),
        ("POST", "/v2/models/..%2f..%2fetc%2fpasswd/infer", 404), ("GET", "/v2/models/../../etc/passwd", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404), ("GET", "/v2/models/%2Fetc%2Fpasswd/config", 404),
        ("POST", "/v2/models/net/versions/1/2/3/infer", 404), ("GET", "/v2/models/" + "a" * 5000, 404),
        ("POST", "/v2/repository/models/..%2f..%2ftmp/load", 404), ("POST", "/v2/repository/models/net/load", 403),
        ("POST", "/v2/repository/models/net/burn", 404), ("GET", INFER, 405), ("DELETE", "/v2/models/net", 405),
        ("POST", "/metrics", 405), ("GET", "/classify", 405), ("BREW", "/", 400),
    ],
)  # fmt: skip
def test_paths(server, method, path, status):
    reply = server.ask(method, path)
    assert reply.status == status
    assert reply.error
    assert "root:" not in reply.body.decode()
    if status == 405:
        assert reply.headers["Allow"] in ("GET", "POST")


PICTURES = {
    "nothing": (b"", 400, "no picture"),
    "text": (b"not a picture", 400, "cannot be read as an image"),
    "cut short": (picture((300, 300))[:-200], 400, "cannot be read as an image"),
    "a PNG's head alone": (picture()[:20], 400, "cannot be read as an image"),
    "more pixels than it may have": (bomb(1001, 1000), 413, "more than the 1,000,000 pixels that"),
    "a bomb": (bomb(30_000, 30_000), 413, "more than the 1,000,000 pixels that"),
    "a bomb beyond Pillow": (bomb(2**31 - 1, 2**31 - 1), 413, "more than the 1,000,000 pixels that"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n", 400, "cannot be read as an image"),
    "a path": (b"/etc/passwd", 400, "cannot be read as an image"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(server, name):
    body, status, words = PICTURES[name]
    reply = server.ask("POST", "/classify", body)
    assert (reply.status, words in reply.error) == (status, True), reply.error


def form(*parts, boundary=b"xx"):
    lines = b"".join(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    return lines + b"--" + boundary + b"--\r\n"


FILE = b'Content-Disposition: form-data; name="file"; filename="../../etc/passwd"'
FIELD = b'Content-Disposition: form-data; name="file"'
FORMS = {
    "a file that bears a path": (form((FILE, picture())), 200, ""),
    "a file beside fields": (form((FIELD, b"x"), (FILE, picture()), (FIELD, b"y")), 200, ""),
    "no file": (form((FIELD, picture())), 400, "has 0 files"),
    "two files": (form((FILE, picture()), (FILE, picture())), 400, "has 2 files"),
    "an empty file": (form((FILE, b"")), 400, "no picture"),
    "too many parts": (form(*[(FIELD, b"x")] * 40), 400, "more than 16 parts"),
    "another boundary": (form((FILE, picture()), boundary=b"yy"), 400, "damaged"),
    "no end": (form((FILE, picture()))[:-40], 400, "files"),
    "no form": (picture(), 400, "damaged"),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(server, name):
    body, status, words = FORMS[name]
    reply = server.ask("POST", "/classify", body, {"Content-Type": "multipart/form-data; boundary=xx"})
    assert reply.status == status, reply.body
    assert status == 200 or words in reply.error


@pytest.mark.parametrize("kind", ["multipart/form-data", 'multipart/form-data; boundary=""'])
def test_forms_without_a_boundary(server, kind):
    assert "boundary" in server.ask("POST", "/classify", form((FILE, picture())), {"Content-Type": kind}).error


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "99999999999999999999", "0000019999", "000001" + "0" * 5000, ""])
def test_a_top_that_cannot_be(server, top):
    reply = server.ask("POST", f"/classify?top={top}", picture())
    assert reply.status == (200 if top == "" else 400)


def test_a_query_of_too_many_fields(server):
    reply = server.ask("POST", "/classify?" + "&".join(f"a{i}=1" for i in range(40)), picture())
    assert (reply.status, "more than 16 fields" in reply.error) == (400, True)


# bodies and connections


def talk(server, head, parts=()):
    """Raw bytes there; the status that comes back, and the rest."""
    with server.connect() as line:
        line.sendall(head)
        for part in parts:
            if select.select([line], [], [], 0)[0]:
                break  # it has answered, and need not be told more
            line.sendall(part)
        return reply_of(line)


def reply_of(line):
    data = b""
    try:
        while more := line.recv(65536):
            data += more
    except ConnectionError:
        pass
    return int(data.split()[1]) if data else None, data


def head(length, more=b""):
    return b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n" % (INFER.encode(), length, more)


CHUNKED = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % INFER.encode()


def memory(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024  # MiB at most so far


def test_a_gigabyte_is_refused_by_what_it_says_of_itself(server):
    status, data = talk(server, head(1 << 30))
    assert status == 413
    assert b"connection: close" in data.lower()


def test_a_gigabyte_is_refused_as_it_streams(server):
    before, chunk = memory(server), b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    status, _ = talk(server, CHUNKED, (chunk for _ in range(1024)))
    assert status == 413
    assert memory(server) - before < 32
    assert server.alive()


@pytest.mark.parametrize("path", [b"/nothing", b"/v2/models/none/infer", b"/v2", b"/v2/repository/models/net/load"])
def test_a_body_that_nobody_reads_is_not_taken_for_a_request(server, path):
    """Whoever is refused before his body was read gets one answer, and the connection is closed behind it."""
    body = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
    status, data = talk(server, head, [body[i : i + 10_000] for i in range(0, len(body), 10_000)])
    assert status in (403, 404, 405)
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in data


def test_a_client_that_waits_for_leave_is_answered_at_once(server):
    status, data = talk(server, head(1 << 30, b"Expect: 100-continue\r\n"))
    assert status == 413
    assert b"100 Continue" not in data


def test_a_decompression_bomb(server):
    small = zlib.compress(b"\0" * (100 << 20))
    before = memory(server)
    reply = server.ask("POST", INFER, small, {"Content-Encoding": "deflate"})
    assert (reply.status, "larger than" in reply.error) == (413, True)
    assert memory(server) - before < 32


@pytest.mark.parametrize(
    ("coding", "body", "status"), [("gzip", b"no gzip", 400), ("deflate", zlib.compress(b"{}")[:-3], 400), ("br", b"{}", 415)]
)
def test_codings_that_cannot_be_read(server, coding, body, status):
    reply = server.ask("POST", INFER, body, {"Content-Encoding": coding})
    assert reply.status == status
    assert reply.error


def test_half_a_request_and_gone(server, images):
    body = infer(images[:1])
    for cut in (b"", b"POST", head(len(body))[:30], head(len(body)), head(len(body)) + body[:100]):
        with server.connect() as line:
            line.sendall(cut)
    with server.connect() as line:  # and one that does not even say goodbye
        line.sendall(head(len(body)) + body[:50])
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.alive()


def test_a_body_that_never_ends_is_not_waited_for(server):
    status, data = talk(server, head(1000) + b"{")
    assert status == 408
    assert b"did not arrive within 3 s" in data


@pytest.mark.parametrize(
    "lines",
    [
        b"\r\n\r\n", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http(server, lines):
    with server.connect() as line:
        line.sendall(lines)
        line.shutdown(socket.SHUT_WR)
        status, data = reply_of(line)
    assert status in (400, None)
    assert status is None or json.loads(data.split(b"\r\n\r\n", 1)[1])["error"]


def test_a_head_without_end(server):
    status, data = talk(server, b"GET / HTTP/1.1\r\n", (b"X-%d: " % i + b"a" * 1000 + b"\r\n" for i in range(200)))
    assert status == 431
    assert b"larger than 65,536 bytes" in data


def test_a_slow_client_hurts_nobody(server, images, offline):
    """Forty heads that never end, forty bodies, and forty that take nothing of their answer."""
    body = infer(images)
    lines = [server.connect() for _ in range(120)]
    try:
        for i, line in enumerate(lines):
            line.sendall((b"GET / HTTP/1.1\r\nX: ", head(len(body)) + body[:1000], head(len(body)) + body)[i % 3])
        for start in range(20):
            found = logits_of(server.ask("POST", INFER, infer(images[start : start + 3])))
            np.testing.assert_array_equal(found, offline["fp32"][start : start + 3])
        for line in lines[1::3]:
            assert reply_of(line)[0] == 408
    finally:
        for line in lines:
            line.close()


def test_a_hundred_times_nonsense_leaves_nothing_behind(server, images):
    def held():
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    server.ask("POST", "/classify", bomb(30_000, 30_000))
    before, fds = memory(server), held()
    for _ in range(100):
        server.ask("POST", "/classify", bomb(30_000, 30_000))
        server.ask("POST", INFER, request(tensor(name="x" * 10_000)))
        server.ask("POST", "/classify", b"\0" * 500_000)
    deadline = time.monotonic() + PATIENCE
    while held() > fds + 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert held() <= fds + 5
    assert memory(server) - before < 16
