"""Several workers: one socket, metrics of all, a killed one replaced, a swap in each, and none left behind."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.serve.conftest import QUICK
from tests.serve.serving import PATIENCE, Reply, Server, _environment, infer, is_refused, logits_of, until
from tests.serve.test_swap import Asking, put
from toolkit.errors import ToolkitError
from toolkit.serve.limits import Settings
from toolkit.serve.workers import Supervisor


def children(process):
    tasks = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in tasks.read_text().split()]


def is_closed(line):
    """Whether the other end is gone; one that waits for more has nothing to say yet."""
    line.setblocking(False)
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture
def place(engines, tmp_path):
    shutil.copytree(engines / "fp32", tmp_path / "engine")
    return tmp_path / "engine"


def test_workers_share_the_work_die_singly_swap_together_and_drain(engines, place, images, offline):
    with Server(f"net={place}", *QUICK, workers=2) as server:
        first = children(server.process.pid)
        assert len(first) == 2

        def ask(i):
            return logits_of(server.ask("POST", "/v2/models/net/infer", infer(images[i % 60 :][:1])))

        with ThreadPoolExecutor(8) as pool:
            found = np.concatenate(list(pool.map(ask, range(120))))
        np.testing.assert_array_equal(found, offline["fp32"][np.arange(120) % 60])
        [state] = server.ask("GET", "/status").json["models"]
        assert state["requests"] == 120, "the counts are of both workers, whichever is asked"

        halves = [server.connect() for _ in range(6)]
        for line in halves:
            line.sendall(b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        until(lambda: b"toolkit_inflight_requests 7.0" in server.ask("GET", "/metrics").body)  # these, and the one that asks
        os.kill(first[0], signal.SIGKILL)
        said = server.wait_for("worker died")
        assert (said["worker"], said["ended"]) == (first[0], "signal SIGKILL")
        lost = sum(is_closed(line) for line in halves)
        assert f"{lost} request(s) in progress are lost" in said["lost"]
        for line in halves:
            line.close()
        until(lambda: len(children(server.process.pid)) == 2)
        server.wait_for("model opened")
        np.testing.assert_array_equal(ask(5), offline["fp32"][5:6])
        assert server.ask("GET", "/status").json["models"][0]["requests"] == 121, "what the dead one had counted stays"

        with Asking(server, engines, images, offline) as asking:
            put(engines, "fp16", place)
            server.hear(signal.SIGHUP)
            pids = {server.wait_for("model replaced")["pid"] for _ in range(2)}
        assert pids == set(children(server.process.pid))
        assert asking.wrong == []
        assert server.stop() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_no_connection_is_taken_while_workers_drain(engines, images, offline):
    """The supervisor has the socket too: what it would take nobody would ever accept."""
    body = infer(images[:1])
    with Server(f"net={engines / 'fp32'}", *QUICK, workers=2) as server, server.connect() as line:
        line.sendall(b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        until(lambda: b"toolkit_inflight_requests 2.0" in server.ask("GET", "/metrics").body)  # this one, and the one that asks
        server.hear(signal.SIGTERM)
        until(lambda: is_refused(server.host, server.port))
        assert server.process.poll() is None
        line.sendall(body)
        response = http.client.HTTPResponse(line)
        response.begin()
        np.testing.assert_array_equal(logits_of(Reply(response)), offline["fp32"][:1])
        assert server.stop() == 0


def test_a_process_has_files_for_its_connections_or_fewer_connections():
    code = """
import json, resource
from toolkit.serve.limits import Limits
from toolkit.serve.process import with_files
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
found = []
for connections in (20, 150, 1024):
    limits = with_files(Limits(connections=connections))
    found.append([limits.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0]])
print(json.dumps(found))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert json.loads(ran.stdout) == [[20, 100], [150, 214], [236, 300]]
    assert "few files" in ran.stderr


def test_workers_end_with_a_supervisor_that_is_killed(engines):
    with Server(engines / "fp32", *QUICK, workers=2) as server:
        pids = children(server.process.pid)
        server.process.kill()
        server.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_worker_that_says_why_and_ends_later_is_heard(monkeypatch):
    def work(settings, bound, pipe, parent):
        os.write(pipe, b"two engines")
        os.close(pipe)
        time.sleep(0.5)
        return 2

    monkeypatch.setattr("toolkit.serve.workers._work", work)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ToolkitError, match="two engines"):
            Supervisor(Settings(sources=(), workers=1), bound).run()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("why", ["port", "engine", "name", "threads"])
def test_what_keeps_a_server_from_starting_is_one_line(engines, tmp_path, workers, why):
    with Server(engines / "fp32", *QUICK) if why == "port" else open(os.devnull) as other:
        words = {
            "port": [engines / "fp32", "--port", other.port if why == "port" else 0],
            "engine": [tmp_path / "none"],
            "name": [f"a@1={engines / 'fp32'}", f"a@1={engines / 'fp16'}"],
            "threads": [engines / "fp32", "--threads", "5000"],
        }[why]
        command = [sys.executable, "-m", "toolkit", "serve", "--port", "0", "--workers", workers, *map(str, words)]
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    assert {"port": "cannot listen", "engine": "is not an engine", "name": "two engines", "threads": "threads"}[why] in line


def test_the_application_under_another_servers_workers(engines, images, offline, tmp_path):
    """What `gunicorn --preload` does: the application is loaded once, then workers are forked, and each starts it up."""
    code = f"""
import asyncio, os, sys
import toolkit.serve
application = toolkit.serve.app("net={engines / 'fp32'}")
import numpy, onnxruntime

async def serve(number):
    started, ended = asyncio.Event(), asyncio.Event()
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    async def receive():
        kind = next(messages)
        if kind == "lifespan.shutdown":
            await ended.wait()
        return {{"type": kind}}
    async def send(message):
        assert message["type"].endswith("complete"), message
        started.set()
    life = asyncio.create_task(application({{"type": "lifespan"}}, receive, send))
    await started.wait()
    body, sent = open({str(tmp_path / 'request')!r}, "rb").read(), []
    async def ask():
        return {{"type": "http.request", "body": body}}
    async def answer(message):
        sent.append(message)
    scope = {{"type": "http", "method": "POST", "path": "/v2/models/net/infer", "query_string": b"", "headers": []}}
    await application(scope, ask, answer)
    open({str(tmp_path)!r} + f"/answer{{number}}", "wb").write(sent[1]["body"])
    ended.set()
    await life

for number in range(2):
    if os.fork() == 0:
        asyncio.run(serve(number))
        os._exit(0)
sys.exit(sum(os.wait()[1] for _ in range(2)))
"""
    (tmp_path / "request").write_bytes(infer(images[:3]))
    done = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    import json

    for number in range(2):
        [output] = json.loads((tmp_path / f"answer{number}").read_bytes())["outputs"]
        np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(output["shape"]), offline["fp32"][:3])
