"""The command's entry. Ctrl-C ends it in one line, from its first moment on and however often it is pressed."""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` takes as long as all the rest of this file
if TYPE_CHECKING:
    from typing import NoReturn

STOPPED = "stopped; what was not finished is as it was before"
PATIENCE = 2.0  # seconds after the first Ctrl-C in which others are not heard: it is being cleaned up


def main() -> None:
    """Run the command line. Exits 2 after Ctrl-C, also while the command line itself is still being imported."""
    try:
        _listen()
        from toolkit.cli.main import main as run

        run()
    except KeyboardInterrupt:
        _stop()
    finally:
        _listen(no_more=True)


def _stop() -> NoReturn:
    """One line, then an end at once: Python itself would end by the signal, where a library was asked in the middle of C code."""
    import os
    import sys

    sys.stdout.flush()
    print(f"error: {STOPPED}", file=sys.stderr, flush=True)
    os._exit(2)


def _listen(no_more: bool = False) -> None:
    """The first Ctrl-C raises KeyboardInterrupt; one that comes PATIENCE later, as cleaning up hangs, ends the process.

    Python drops what is raised in a destructor or a callback, such as those of an import: a Ctrl-C that came there comes again.
    """
    import _thread
    import os
    import signal
    import sys
    import time
    from types import FrameType

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts its background jobs
        return
    if no_more:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    first: list[float] = []

    def heard(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not first:
            first.append(now)
            raise KeyboardInterrupt
        if now - first[0] > PATIENCE:
            os.write(2, f"error: {STOPPED}\n".encode())
            os._exit(2)

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(what)
            return
        first.clear()
        _thread.start_new_thread(_again, ())

    sys.unraisablehook = dropped
    signal.signal(signal.SIGINT, heard)


def _again() -> None:
    """Ctrl-C once more, a moment later: what dropped the first has ended."""
    import os
    import signal
    import time

    time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
