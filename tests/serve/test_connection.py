"""What clients other than ours do with a connection: offer another protocol on it, end their side of it, send more than HTTP."""

from __future__ import annotations

import json
import socket
from typing import BinaryIO

import numpy as np
import pytest

from tests.serve.conftest import QUICK
from tests.serve.serving import Server, infer

JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
SOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@pytest.fixture(scope="module")
def server(engines):
    with Server(f"net={engines / 'fp32'}", *QUICK) as running:
        yield running
        assert running.stop() == 0
        assert len(running.log) == len(running.raw), "something was said that is not in the log's form"


def post(body: bytes, more: bytes = b"", *, chunked: bool = False) -> bytes:
    size = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    return b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\n" + more + size + b"\r\n" + sent


def next_of(file: BinaryIO) -> tuple[int, bytes]:
    """Status and body of the next answer on a connection."""
    status = int(file.readline().split()[1])
    head = dict(line.lower().split(b": ", 1) for line in iter(file.readline, b"\r\n"))
    return status, file.read(int(head[b"content-length"]))


def logits_on(file: BinaryIO) -> np.ndarray:
    status, body = next_of(file)
    assert status == 200, body
    [output] = json.loads(body)["outputs"]
    return np.array(output["data"], np.float32)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("offer", [JAVA, SOCKET, b"Upgrade: h2c\r\nConnection: upgrade\r\n"], ids=["java", "socket", "bare"])
@pytest.mark.parametrize("piece", [None, 1000])
def test_an_offer_of_another_protocol_is_declined_and_the_body_read(server, images, offline, offer, chunked, piece):
    """Java's HttpClient sends one with every request; what follows on the connection is read as well."""
    data = b"".join(post(infer(images[i : i + 1]), offer, chunked=chunked) for i in range(2)) + post(infer(images[2:3]))
    with server.connect() as line:
        for start in range(0, len(data), piece or len(data)):
            line.sendall(data[start : start + (piece or len(data))])
        answers = line.makefile("rb")
        found = [logits_on(answers) for _ in range(3)]
    np.testing.assert_array_equal(found, offline["fp32"][:3])


def test_a_tunnel_is_refused(server):
    with server.connect() as line:
        line.sendall(b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: elsewhere:80\r\n\r\n")
        assert line.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_a_client_that_ends_its_side_is_answered(server, images, offline):
    with server.connect() as line:
        line.sendall(post(infer(images[:1])) + post(infer(images[1:2])))
        line.shutdown(socket.SHUT_WR)
        answers = line.makefile("rb")
        found = [logits_on(answers) for _ in range(2)]
        assert answers.read() == b"", "the connection is open though nothing can come"
    np.testing.assert_array_equal(found, offline["fp32"][:2])


def test_what_follows_a_request_and_is_no_http_does_not_take_its_answer(server, images, offline):
    with server.connect() as line:
        line.sendall(post(infer(images[:1])) + b"\x00no request\r\n\r\n")
        answers = line.makefile("rb")
        np.testing.assert_array_equal(logits_on(answers), offline["fp32"][0])
        assert answers.read() == b""


def test_an_answer_under_way_when_its_connection_is_refused_comes_too_late(server, images):
    """The body is damaged after the route that reads none of it has begun to answer."""
    for _ in range(20):
        with server.connect() as line:
            line.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
            assert line.makefile("rb").read().count(b"HTTP/1.1 ") == 1
    assert server.alive()
