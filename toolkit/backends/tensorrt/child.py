"""The child process of `apart.py`: python -m toolkit.backends.tensorrt.child REQUEST ANSWER.

TensorRT-RTX orders what it generates for a dynamic batch by memory addresses: under address-space randomization the same graph
gives another plan each time (equal in what it computes). So each build has a fresh process without randomization, and a fresh
thread, whose memory starts empty at a fixed place. One race is left: the library hands work to a thread of its own, and which
of the two drops a block last decides where later ones lie. So the kept plans of `apart.py`.
"""

from __future__ import annotations  # and little else before the process is started again: it would be imported twice

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.backends.tensorrt.apart import BuildAnswer, BuildRequest

ADDR_NO_RANDOMIZE = 0x0040000  # <sys/personality.h>
QUERY = 0xFFFFFFFF
UNFIXED = "memory addresses could not be fixed here, so another build may differ in its bytes, not in what it computes"


def fix_addresses() -> bool:
    """Start this process again without address randomization. False where the system has no such thing, or forbids it."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    libc: Any = ctypes.CDLL(None)
    now = libc.personality(QUERY)
    if now & ADDR_NO_RANDOMIZE:
        return True
    if libc.personality(now | ADDR_NO_RANDOMIZE) != -1 and libc.personality(QUERY) & ADDR_NO_RANDOMIZE:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return False


def main(question: str, reply: str, fixed: bool) -> None:
    """Read a BuildRequest, build, write an BuildAnswer."""
    import _thread
    import gc
    from pathlib import Path

    import msgspec

    from toolkit.backends.tensorrt.apart import BuildRequest

    request = msgspec.msgpack.decode(Path(question).read_bytes(), type=BuildRequest)
    work = prepare(request, fixed)
    answers: list[BuildAnswer] = []
    done = _thread.allocate_lock()  # threading.Thread would have both threads free what they share, in any order
    done.acquire()

    def build() -> None:
        try:
            answers.append(work())
        finally:
            done.release()

    gc.disable()  # it would free this thread's blocks in the other
    _thread.start_new_thread(build, ())
    done.acquire()
    if answers:  # else the thread has said on stderr what broke
        Path(reply).write_bytes(msgspec.msgpack.encode(answers[0]))


def prepare(request: BuildRequest, fixed: bool) -> Callable[[], BuildAnswer]:
    """Import and load all that the build needs, so that its thread finds the same memory whatever that took."""
    import msgspec

    from toolkit.backends.tensorrt.apart import BuildAnswer, Refusal
    from toolkit.backends.tensorrt.build import build_plan
    from toolkit.backends.tensorrt.library import load
    from toolkit.errors import BackendError, ToolkitError

    def refused(error: ToolkitError) -> BuildAnswer:
        kind = BackendError if isinstance(error, BackendError) else type(error)  # MissingExtra takes other arguments
        return BuildAnswer(refusal=Refusal(kind=kind.__name__, what=error.what, remedy=error.remedy))

    try:
        library = load(request.target.kind)
    except ToolkitError as error:  # it did load in the parent
        refusal = refused(error)
        return lambda: refusal

    def answer() -> BuildAnswer:
        try:
            built = build_plan(library, request.data, request.build, request.target)
        except ToolkitError as error:
            return refused(error)
        return BuildAnswer(built=built if fixed else msgspec.structs.replace(built, notes=(*built.notes, UNFIXED)))

    return answer


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], fix_addresses())
