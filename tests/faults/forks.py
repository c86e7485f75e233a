"""Whole commands in forks of one process that has imported everything: killed, or refused by the system, at a chosen call.

`python -m tests.faults.forks PLACE COMMAND POINTS [ERROR]` is such a process. It counts the calls by which the command changes a
disk, in it and in the child that opens ONNX files (which is forked here, and not started anew); then it makes it fail at POINTS
of them, evenly spread: by SIGKILL, or by the error of that name. It prints what is wrong, a line each, and how many were tried.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.place import COMMANDS, Command, clear, environment, lay_out, litter, wrong

CALLS = ("mkdir", "open", "fdopen", "fsync", "chmod", "rename", "replace", "unlink", "rmdir", "utime")


class Counter:
    """Counts over processes that were forked after it was made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def next(self) -> int:
        value = self.value
        self._memory[:] = (value + 1).to_bytes(8, "little")
        return value

    @property
    def value(self) -> int:
        return int.from_bytes(self._memory[:], "little")


def run(place: Path, command: Command, moment: int | None, error: str | None = None) -> tuple[int, str, int]:
    """The exit code, what was said, and how many calls were made; at number `moment` the process fails."""
    counter, said = Counter(), place / "said"
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.chdir(place)
        os.environ.update(environment(place))
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        _open_apart_by_fork()
        _arm(counter, moment, error, place)
        _command(command)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, said.read_text(errors="replace"), counter.value


def _command(command: Command) -> None:
    """Never returns."""
    from toolkit.cli.main import main

    sys.argv = ["toolkit", *command.words]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _arm(counter: Counter, moment: int | None, error: str | None, place: Path) -> None:
    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*given: Any, **named: Any) -> Any:
            if _changes(call.__name__, given, place) and counter.next() == moment:
                if error is None:
                    os.killpg(0, signal.SIGKILL)
                code = getattr(errno, error)
                raise OSError(code, os.strerror(code))
            return call(*given, **named)

        return instead

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def _changes(name: str, given: tuple[Any, ...], place: Path) -> bool:
    if name == "open":
        return bool(given[1] & (os.O_WRONLY | os.O_RDWR))
    if name == "fdopen":
        return len(given) > 1 and "w" in str(given[1])
    return True


def _open_apart_by_fork() -> None:
    """The child of `graph/load/apart.py` runs the same code; only Python need not start and import it all again."""
    from toolkit.graph.load import apart, child

    def run(folder: Path, seconds: float) -> tuple[int, str]:
        process = os.fork()
        if process == 0:
            try:
                child.main(folder)
            except OSError:
                os._exit(apart.CANNOT_WRITE)
            except BaseException:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), "it was refused"

    apart._run = run  # type: ignore[assignment]


def hunt(place: Path, name: str, points: int, error: str | None) -> int:
    """Prints what is wrong; gives how many moments were tried."""
    lay_out(place)
    command = COMMANDS[name]
    if name == "pack":
        assert run(place, COMMANDS["build"], None)[0] == 0
        os.rename(place / "built", place / "made")
        (place / "built").mkdir()
    code, said, calls = run(place, command, None)
    assert code == 0, said
    good = command.read(place / command.output)
    moments = range(calls) if points >= calls else [round(i * (calls - 1) / (points - 1)) for i in range(points)]
    for number, moment in enumerate(moments):
        clear(place)
        before = None
        if number % 2 or command.first:  # one of a good run stands there
            run(place, command.before, None)
            before = command.read(place / command.output)
        code, said, _ = run(place, command, moment, error)
        found = wrong(place, command, code, said, [before, good])
        if found is None:  # the next good run makes it well, and clears up
            code, said, _ = run(place, command, None)
            found = wrong(place, command, code, said, [good]) or (f"litter: {left}" if (left := litter(place)) else None)
        if found:
            print(f"{name}, {error or 'SIGKILL'} at call {moment} of {calls}: {found}", flush=True)
    return len(moments)


def main() -> None:
    place, name, points, *error = sys.argv[1:]
    import onnx_ir  # noqa: F401
    import onnxruntime  # noqa: F401

    import toolkit.cli.main
    import toolkit.graph.load.child
    import toolkit.orders
    import toolkit.pipeline  # noqa: F401

    print(f"{hunt(Path(place), name, int(points), error[0] if error else None)} tried")


if __name__ == "__main__":
    main()
