"""A real server in a process of its own, and plain HTTP to it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

PATIENCE = 60.0  # seconds that no passing test waits for


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_refused(host: str, port: int) -> bool:
    """Whether nobody listens there any more."""
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


class Server:
    """`toolkit serve ...` on a free port; `log` is what it has said so far, an object a line."""

    def __init__(self, *words: str | Path, workers: int = 1) -> None:
        command = [sys.executable, "-m", "toolkit", "serve", *map(str, words), "--port", "0", "--workers", str(workers)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment())
        self.log: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.wait_for("serving")["url"]
        self.host, self.port = urlsplit(self.url).hostname, urlsplit(self.url).port
        self.address = f"{self.host}:{self.port}"

    def _read(self) -> None:
        for line in self.process.stderr:
            self.raw.append(line.decode())
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            self.log.append(entry)
            self._said.put(entry)
        self._said.put({"event": "the end"})

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next entry of that event."""
        while (entry := self._said.get(timeout=PATIENCE))["event"] != event:
            if entry["event"] == "the end":
                raise AssertionError(f"the server ended, and never said '{event}':\n" + "".join(self.raw))
        return entry

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def alive(self) -> bool:
        return self.process.poll() is None and self.ask("GET", "/v2/health/ready").status == 200

    def hear(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.hear(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()


class Reply:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The protocol's error, and nothing else beside it."""
        found = self.json
        assert list(found) == ["error"], found
        return found["error"]


def _environment() -> dict[str, str]:
    here = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}


def infer(images: np.ndarray, name: str = "input", **more: Any) -> bytes:
    """An infer request in JSON."""
    tensor = {"name": name, "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    return msgspec.json.encode({"inputs": [tensor], **more})


def logits_of(reply: Reply) -> np.ndarray:
    [output] = reply.json["outputs"]
    assert output["datatype"] == "FP32"
    return np.array(output["data"], np.float32).reshape(output["shape"])
