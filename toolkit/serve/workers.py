"""Workers: processes that share a socket, each with engines of its own; one that dies is replaced."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import time
from typing import NamedTuple

from toolkit.disk.drafts import scratch
from toolkit.engine.engine import Engine
from toolkit.errors import ToolkitError
from toolkit.serve.limits import Settings
from toolkit.serve.log import say
from toolkit.serve.process import run, url

SHARED = "PROMETHEUS_MULTIPROC_DIR"
YOUNG = 10.0  # seconds: a worker that dies younger makes the next one wait longer
LONGEST = 30.0  # seconds between two tries
TICK = 0.1
PR_SET_PDEATHSIG = 1  # prctl(2)


class Worker(NamedTuple):
    process: int
    pipe: int  # the worker writes one byte once it serves, or why it cannot
    born: float


class Supervisor:
    """Starts `settings.workers` processes and keeps that many; hears SIGTERM and SIGINT (drain all) and SIGHUP (look at the
    engines' paths again). It serves nothing itself, and opens no session: threads and devices do not survive a fork."""

    def __init__(self, settings: Settings, bound: socket.socket) -> None:
        self.settings, self.bound = settings, bound
        self.workers: dict[int, Worker] = {}
        self._ending = self._reload = False
        self._delay, self._next = 0.0, 0.0
        self._serving = False
        self._reasons: dict[int, str] = {}  # why a worker could not start, in its own words

    def run(self) -> None:
        """Returns when all have drained. Raises ToolkitError where the first ones cannot start."""
        for source in self.settings.sources:
            Engine.open(source.path)  # damaged, foreign or absent: said once, before there are any workers
        self.bound.listen(2048)
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        with scratch() as folder:  # where all workers' counts are kept
            os.environ[SHARED] = str(folder)
            try:
                self._keep()
            finally:
                self._end(signal.SIGKILL)
                del os.environ[SHARED]
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self._ending = True

    def _keep(self) -> None:
        deadline: float | None = None
        while not self._ending or self.workers:
            self._bury()
            if self._ending:
                if deadline is None:
                    deadline = time.monotonic() + self.settings.limits.drain + 5
                    self.bound.close()  # while it is open here, connections are taken that no worker will ever accept
                    self._tell(signal.SIGTERM)
                elif time.monotonic() > deadline:
                    say("drain took too long", logging.ERROR, killed=list(self.workers))
                    return
            else:
                self._start_missing()
                self._look_for_ready()
            if self._reload:
                self._reload = False
                self._tell(signal.SIGHUP)
            time.sleep(TICK)
        say("drained")

    def _start_missing(self) -> None:
        if time.monotonic() < self._next:
            return
        while len(self.workers) < self.settings.workers:
            self._start()

    def _start(self) -> None:
        read, write = os.pipe()
        parent = os.getpid()
        process = os.fork()
        if process == 0:
            os.close(read)
            os._exit(_work(self.settings, self.bound, write, parent))
        os.close(write)
        os.set_blocking(read, False)
        self.workers[process] = Worker(process, read, time.monotonic())

    def _look_for_ready(self) -> None:
        if not self._serving and self.workers and all(self._is_ready(worker) for worker in list(self.workers.values())):
            self._serving = True
            say("serving", url=url(self.bound), workers=len(self.workers))

    def _is_ready(self, worker: Worker) -> bool:
        if worker.pipe < 0:
            return True
        try:
            text = os.read(worker.pipe, 4096)
        except BlockingIOError:
            return False
        if text[:1] != b"+":
            said = self._reasons.get(worker.process, "")  # at the end of the pipe nothing more is read: what was said stays
            self._reasons[worker.process] = said + text.decode(errors="replace")
            return False
        os.close(worker.pipe)
        self.workers[worker.process] = worker._replace(pipe=-1)
        return True

    def _bury(self) -> None:
        """Whoever has ended: forget it, and say so; a first one that never served ends the server."""
        for worker in list(self.workers.values()):
            found, status = os.waitpid(worker.process, os.WNOHANG)
            if not found:
                continue
            del self.workers[worker.process]
            reason = self._reasons.pop(worker.process, "") or _said(worker)
            from toolkit.serve.metrics import forget

            under_way = forget(worker.process)
            code = os.waitstatus_to_exitcode(status)
            if self._ending:
                continue
            if not self._serving:
                self._end(signal.SIGTERM)
                raise ToolkitError(reason or f"a worker ended with {_ended(code)} before it served", remedy="Read its log above")
            lost = f"{under_way} request(s) in progress are lost, and any not read yet; their clients see a closed connection"
            say("worker died", logging.ERROR, worker=worker.process, ended=_ended(code), reason=reason, lost=lost)
            young = time.monotonic() - worker.born < YOUNG
            self._delay = min(max(2 * self._delay, 0.5), LONGEST) if young else 0.0
            self._next = time.monotonic() + self._delay

    def _tell(self, number: int) -> None:
        for process in self.workers:
            os.kill(process, number)

    def _end(self, number: int) -> None:
        self._tell(number)
        for process in self.workers:
            os.waitpid(process, 0)
        self.workers.clear()


def _said(worker: Worker) -> str:
    """What is still in a worker's pipe."""
    if worker.pipe < 0:
        return ""
    try:
        return os.read(worker.pipe, 4096).decode(errors="replace").removeprefix("+")
    except BlockingIOError:
        return ""
    finally:
        os.close(worker.pipe)


def _ended(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _work(settings: Settings, bound: socket.socket, pipe: int, parent: int) -> int:
    """In the worker; gives back its exit code."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it listens: there is nothing to reload yet
        _end_with(parent)
        run(settings, bound, lambda: _tell_parent(pipe, b"+"))
        return 0
    except ToolkitError as error:
        _tell_parent(pipe, str(error).encode()[:4000])
        return 2
    except BaseException as error:
        say("worker failed", logging.ERROR, error=error)
        return 1
    finally:
        sys.stderr.flush()


def _tell_parent(pipe: int, text: bytes) -> None:
    try:
        os.write(pipe, text)
        os.close(pipe)
    except OSError:
        pass  # the supervisor is gone, and so will this worker be


def _end_with(parent: int) -> None:
    """A supervisor that is killed takes its workers along, where the system can be asked for that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the line above
            os._exit(1)
