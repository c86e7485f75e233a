"""A process that has imported what opens an ONNX file, and forks for each: Python need not start and import it all again.

The fork runs `toolkit.graph.load.child` as a started child would: on the folder that it is given, with the environment and the
current folder of who asks, within the same limits. So the suite asks here (`conftest.py`); the tests of the child itself,
and all commands in processes of their own, start it as a user's does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


class Opener:
    """In the suite's process: `run` stands in for `apart._run`. The server starts with the first file."""

    def __init__(self, address: Path, steady: dict[str, str]) -> None:
        self.address, self.steady = str(address), steady
        self.server: subprocess.Popen[str] | None = None

    def run(self, folder: Path, seconds: float) -> tuple[int | None, str]:
        """The exit code, None where it had to be stopped; and its last word."""
        if self.server is None:
            command = [sys.executable, "-m", "tests.warm", self.address]
            env = {**os.environ, **self.steady, "PYTHONPATH": str(Path(__file__).parents[1])}
            self.server = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE)
            assert self.server.stdout and self.server.stdout.readline() == "ready\n"
        asked = {"folder": str(folder), "cwd": os.getcwd(), "env": {**os.environ, **self.steady}}
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self.address)
            line.settimeout(seconds)
            with line.makefile("rw") as words:
                words.write(json.dumps(asked) + "\n")
                words.flush()
                pid = int(words.readline())
                try:
                    code, said = json.loads(words.readline())
                except TimeoutError:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    return None, ""
        return code, said.strip().rpartition("\n")[2]

    def close(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.communicate()


def serve(address: str) -> None:
    """One request a connection: `{folder, cwd, env}` in a line -> the child's pid, then its exit code and stdout, a line each."""
    import onnxruntime  # noqa: F401  the child imports it where it has a file to run

    import toolkit.graph.load.child  # noqa: F401

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        caller, _ = listener.accept()
        with caller, caller.makefile("rw") as words, suppress(BrokenPipeError):
            asked, said = json.loads(words.readline()), os.memfd_create("said")
            pid = os.fork()
            if pid == 0:
                _answer(asked, said)
            words.write(f"{pid}\n")
            words.flush()
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.lseek(said, 0, os.SEEK_SET)
            with os.fdopen(said, encoding="utf-8", errors="replace") as text:
                words.write(json.dumps([code, text.read()]) + "\n")


def _answer(asked: dict[str, Any], said: int) -> None:
    """What the end of `child.py` does. Never returns."""
    from toolkit.graph.load.apart import CANNOT_WRITE
    from toolkit.graph.load.child import main

    os.dup2(said, 1)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    tempfile.tempdir = None  # TMPDIR may be another by now
    code = 1
    try:
        main(Path(asked["folder"]))
        code = 0
    except OSError as fault:
        print(fault.strerror or fault)
        code = CANNOT_WRITE
    except BaseException as error:  # as Python ends it: a line of it is enough
        print(repr(error), file=sys.stderr)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
