"""A full queue answers at once and recovers; SIGTERM drains. The engine waits at a gate, so that no clock decides."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from tests.runtime.test_runner import MANIFEST, Means
from tests.serve.serving import PATIENCE, Reply, infer, is_refused, until
from toolkit.harness.batching import Batching
from toolkit.runtime.runner import Runner
from toolkit.serve import connection
from toolkit.serve.app import App
from toolkit.serve.connection import uvicorn_settings
from toolkit.serve.limits import Limits, Settings, Source
from toolkit.serve.live import Live, Model
from toolkit.serve.metrics import Metrics
from toolkit.serve.models import Models
from toolkit.serve.process import listen
from toolkit.serve.routes import Routes

IMAGES = np.random.default_rng(3).normal(size=(8, 3, 4, 4)).astype(np.float32)


class Gate(Means):
    """Answers once it is let; `began` counts the calls that have."""

    def __init__(self):
        super().__init__()
        self.go, self.began = threading.Event(), threading.Semaphore(0)
        self.fail, self.answer = False, None

    def run(self, batch):
        self.began.release()
        assert self.go.wait(PATIENCE)
        if self.fail:
            raise RuntimeError("a secret of /home/me")
        return super().run(batch) if self.answer is None else np.stack([self.answer] * len(batch))


class Playing:
    """The application on a real server in this process, over an executor of this test's own."""

    def __init__(self, **limits):
        self.gate = Gate()
        self.app = App(Settings(sources=(Source(path=Path("-")),), limits=Limits(**limits)))
        metrics = self.app._metrics = Metrics()
        models = Models(self.app.settings, metrics)
        batching = Batching(max_batch=1, preferred=(1,), max_wait=0.0)
        self.live = Live(Runner(MANIFEST, self.gate), batching, limits.get("queue", 2), metrics.gauges("means", "1"))
        models._models["means"] = {"1": Model("means", "1", Source(path=Path("-")), self.live)}
        self.app._models, self.app._routes = models, Routes(models, metrics, self.app.settings)
        self.bound = listen("127.0.0.1", 0)
        self.port = self.bound.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(self.app, **uvicorn_settings(self.app.settings.limits)))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[self.bound])))

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
        return self

    def __exit__(self, *_):
        self.gate.go.set()
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        assert self.gate.closes == 1

    def ask(self, i, path="/v2/models/means/infer"):
        return self.post(path, infer(IMAGES[i : i + 1], "x"))

    def post(self, path, body):
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        line.request("POST", path, body)
        reply = Reply(line.getresponse())
        line.close()
        return reply

    def metric(self, name, **labels):
        return sum(value for key, found, value in self.app._metrics.samples() if key == name and labels.items() <= found.items())


def mean_of(i):
    return IMAGES[i].mean(axis=(1, 2)).tolist()


def test_a_full_queue_answers_at_once_and_recovers():
    with Playing(queue=2) as playing, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(playing.ask, 0)]
        assert playing.gate.began.acquire(timeout=PATIENCE)
        for i in (1, 2):
            asked.append(pool.submit(playing.ask, i))
            until(lambda wanted=i: playing.live.batcher.waiting >= wanted)
        assert playing.metric("toolkit_queue_images", model="means") == 2
        refused = playing.ask(3)  # with the engine still at the gate: nothing was waited for
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert "2 images wait already, and the queue holds 2" in refused.error
        playing.gate.go.set()
        assert [one.result().json["outputs"][0]["data"] for one in asked] == [mean_of(i) for i in range(3)]
        assert playing.ask(3).json["outputs"][0]["data"] == mean_of(3)
        assert playing.metric("toolkit_errors_total", reason="busy") == 1
        assert playing.metric("toolkit_queue_images", model="means") == 0
        assert playing.metric("toolkit_requests_total", status="200", route="infer") == 4


def test_what_is_under_way_at_the_end_is_answered_and_nothing_after_it():
    with Playing() as playing, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(playing.ask, 0)]
        assert playing.gate.began.acquire(timeout=PATIENCE)  # else all three may wait at once, and the queue holds two
        asked += [pool.submit(playing.ask, i) for i in (1, 2)]
        until(lambda: playing.live.batcher.waiting == 2)
        playing.server.should_exit = True
        until(lambda: not any(server.is_serving() for server in playing.server.servers))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", playing.port), timeout=PATIENCE)
        playing.gate.go.set()
        assert [one.result().json["outputs"][0]["data"] for one in asked] == [mean_of(i) for i in range(3)]


def test_a_request_on_its_way_as_the_server_begins_to_drain_is_answered_and_said_to_be_the_last(monkeypatch):
    """Most connections of a busy client are idle at that moment: closed at once, each would lose the request that follows."""
    monkeypatch.setattr(connection, "LINGER", PATIENCE)  # no clock decides
    with Playing(drain=4 * PATIENCE) as playing:
        playing.gate.go.set()
        line = http.client.HTTPConnection("127.0.0.1", playing.port, timeout=PATIENCE)
        for i in range(2):
            line.request("POST", "/v2/models/means/infer", infer(IMAGES[i : i + 1], "x"))
            answer = line.getresponse()
            assert json.loads(answer.read())["outputs"][0]["data"] == mean_of(i)
            assert answer.headers["connection"] == (None, "close")[i]
            playing.server.should_exit = True
            until(lambda: is_refused("127.0.0.1", playing.port))


def test_an_engine_that_fails_says_nothing_of_this_machine_and_serves_on():
    with Playing() as playing:
        playing.gate.go.set()
        playing.gate.fail = True
        reply = playing.ask(0)
        assert reply.status == 500
        assert "secret" not in reply.body.decode()
        assert "the server's log says why" in reply.error
        playing.gate.fail = False
        assert playing.ask(0).status == 200


def test_an_answer_of_nan_names_no_class():
    """NaN sorts behind every number: another class would be called the likeliest."""
    with Playing() as playing:
        playing.gate.go.set()
        playing.gate.answer = np.array([np.nan, 1, 2], np.float32)
        picture = io.BytesIO()
        Image.new("RGB", (4, 4)).save(picture, "png")
        asked = infer(IMAGES[:1], "x", outputs=[{"name": "y", "parameters": {"classification": 2}}])
        for path, body in (("/classify", picture.getvalue()), ("/v2/models/means/infer", asked)):
            reply = playing.post(path, body)
            assert (reply.status, "NaN or infinity" in reply.error) == (500, True)
        assert playing.metric("toolkit_errors_total", reason="not-finite") == 2


def test_a_request_that_waits_too_long_leaves_the_queue():
    with Playing(seconds=0.2) as playing, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(playing.ask, i) for i in range(2)]
        for one in asked:
            assert (one.result().status, "not answered within 0.2 s" in one.result().error) == (504, True)
        playing.gate.go.set()
        assert playing.ask(4).json["outputs"][0]["data"] == mean_of(4)
        assert len(playing.gate.sizes) == 2, "the one that had not begun was never run"


def test_more_connections_than_may_be_are_refused_and_others_go_on():
    with Playing(connections=3) as playing:
        playing.gate.go.set()
        lines = [http.client.HTTPConnection("127.0.0.1", playing.port, timeout=PATIENCE) for _ in range(3)]

        def alive(line: http.client.HTTPConnection) -> bool:
            line.request("GET", "/v2/health/live")
            answer = line.getresponse()
            return answer.status == 200 and json.loads(answer.read()) == {"live": True}

        assert all(alive(line) for line in lines)
        reply = playing.ask(0)
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert "as many connections as it may" in reply.error
        assert alive(lines[0])
        for line in lines:
            line.close()
        until(lambda: not playing.server.server_state.connections)
        assert playing.ask(0).status == 200


def test_all_bodies_together_are_bounded():
    with Playing(bodies=4096) as playing:
        playing.gate.go.set()
        line = socket.create_connection(("127.0.0.1", playing.port), timeout=PATIENCE)
        line.sendall(b"POST /v2/models/means/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b" " * 3500)
        until(lambda: playing.app._budget.held >= 3500)
        assert (playing.ask(0).status, "as many bytes of requests" in playing.ask(0).error) == (503, True)
        line.close()
        until(lambda: not playing.app._budget.held)
        assert playing.ask(0).status == 200


def test_pipelined_requests_are_answered_in_turn():
    with Playing() as playing:
        playing.gate.go.set()
        bodies = [infer(IMAGES[i : i + 1], "x") for i in range(3)]
        heads = [b"POST /v2/models/means/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) for body in bodies]
        with socket.create_connection(("127.0.0.1", playing.port), timeout=PATIENCE) as line:
            line.sendall(b"".join(head + body for head, body in zip(heads, bodies, strict=True)))
            data = b""
            while data.count(b'"outputs"') < 3:
                data += line.recv(65536)
        found = [json.loads(b"{" + part.split(b"\r\n\r\n{", 1)[1].split(b"HTTP/1.1")[0]) for part in data.split(b"200 OK")[1:]]
        assert [one["outputs"][0]["data"] for one in found] == [mean_of(i) for i in range(3)]
