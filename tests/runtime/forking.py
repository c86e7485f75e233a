"""A forked process that a test can wait for without hanging with it."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable


def in_a_fork(work: Callable[[], None]) -> int:
    """The exit code of a forked process that did `work` and then ended as Python does; -9 where it hung."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    for _ in range(600):
        if (done := os.waitpid(child, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(done[1])
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
