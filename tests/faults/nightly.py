"""Commands under faults, by night: `python -m tests.faults.nightly --first 0 --each 50`. Exit code 1 where something was found.

Each command (build, calibrate, pack, tune; swap: a build in place of another engine) is started as a user starts it, and a
seed says what befalls it:

- `kill`: SIGKILL as it, or any process or thread of it, enters a system call, by strace;
- `error`: that system call fails with EIO, ENOSPC, EXDEV, EROFS or EDQUOT, by strace;
- `time`: SIGKILL of the whole process group after a while;
- `full`: the folder for its output, its cache or its temporary files is a file system of some pages (needs root);
- `limit`: no file may grow beyond some bytes (RLIMIT_FSIZE);
- `clock`: it is 1970, or 2100, by libfaketime (Debian's `faketime`);
- `twice`: two at once, on the same output, while a third process reads it.

After each the output is whole, the old or the new one; the next good run gives the new one, and leaves no litter.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.place import COMMANDS, Command, clear, environment, lay_out, litter, wrong

ROOT = Path(__file__).parents[2]
REFUSED = ("write", "mkdir", "fsync", "chmod", "rename", "renameat2", "unlink", "unlinkat", "rmdir", "flock")
CHANGES = (*REFUSED, "openat", "close", "pwrite64")
ERRORS = ("EIO", "ENOSPC", "EXDEV", "EROFS", "EDQUOT")
KINDS = ("kill", "error", "time", "full", "limit", "clock", "twice")
CLOCKS = ("1970-01-02 00:00:00", "2100-01-01 00:00:00")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", help=f"absent: all of {', '.join(COMMANDS)}")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--each", type=int, default=50, help="seeds for each command and kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    found = 0
    for name in given.commands or COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "place")
            good = _prepare(place, name)
            for kind in given.kinds.split(","):
                tried = skipped = 0
                for seed in range(given.first, given.first + given.each):
                    what = _try(place, COMMANDS[name], kind, random.Random(f"{name} {kind} {seed}"), good)
                    tried, skipped = tried + 1, skipped + (what == "skipped")
                    if what and what != "skipped":
                        found += 1
                        print(f"  {name}, {kind}, seed {seed}: {what}", flush=True)
                print(f"{name}, {kind}: {tried - skipped} tried, {skipped} not possible here", flush=True)
    sys.exit(1 if found else 0)


def start(place: Path, command: Command, before: Sequence[str] = (), **more: Any) -> subprocess.Popen[str]:
    """The command as a user starts it, behind `before`; stdout and stderr are one."""
    env = {**environment(place), "PYTHONPATH": str(ROOT)}
    line = [*before, sys.executable, "-m", "toolkit", *command.words]
    return subprocess.Popen(line, cwd=place, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, start_new_session=True, **more)  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


def _prepare(place: Path, name: str) -> object:
    lay_out(place)
    if name == "pack":
        assert finish(start(place, COMMANDS["build"]))[0] == 0
        os.rename(place / "built", place / "made")
        (place / "built").mkdir()
    code, said = finish(start(place, COMMANDS[name]))
    assert code == 0, said
    return COMMANDS[name].read(place / COMMANDS[name].output)


def _try(place: Path, command: Command, kind: str, dice: random.Random, good: object) -> str | None:
    """One fault, and the good run after it: what is wrong; None; or `skipped`."""
    clear(place)
    before = None
    if dice.random() < 0.5 or command.first:
        finish(start(place, command.before))
        before = command.read(place / command.output)
        if dice.random() < 0.5:
            shutil.rmtree(place / "cache/resnet-deploy", ignore_errors=True)
    code, said = FAULTS[kind](place, command, dice)
    if code is None:
        return "skipped"
    found = wrong(place, command, code, said, [before, good])
    if found is None:
        code, said = finish(start(place, command))
        found = wrong(place, command, code, said, [good]) or (f"litter: {left}" if (left := litter(place)) else None)
    return found


Ended = tuple[int | None, str]


def _strace(place: Path, command: Command, inject: str) -> Ended:
    if shutil.which("strace") is None:
        return None, ""
    call = inject.partition(":")[0]
    before = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}"]
    process = start(place, command, before)
    code, said = finish(process)
    with suppress(ProcessLookupError):  # a child that the killed process left
        os.killpg(process.pid, signal.SIGKILL)
    return (-signal.SIGKILL if code == 128 + signal.SIGKILL else code), said


def _kill(place: Path, command: Command, dice: random.Random) -> Ended:
    return _strace(place, command, f"{dice.choice(CHANGES)}:signal=SIGKILL:when={_often(dice)}")


def _error(place: Path, command: Command, dice: random.Random) -> Ended:
    return _strace(place, command, f"{dice.choice(REFUSED)}:error={dice.choice(ERRORS)}:when={_often(dice)}")


def _often(dice: random.Random) -> int:
    """Which of many calls: the first ones as likely as the later ones."""
    return round(2 ** dice.uniform(0, 9))


def _time(place: Path, command: Command, dice: random.Random) -> Ended:
    process = start(place, command)
    time.sleep(dice.uniform(0.2, 8))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return finish(process)


def _full(place: Path, command: Command, dice: random.Random) -> Ended:
    where = place / dice.choice((command.output.partition("/")[0], "cache", "tmp"))
    size = f"size={4 * dice.choice((1, 2, 3, 4, 6, 8, 12, 16, 32))}k"
    aside = where.with_name("aside")
    where.rename(aside)
    where.mkdir()
    try:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", where], capture_output=True, check=False).returncode:
            return None, ""
        try:
            code, said = finish(start(place, command))
            for entry in list(where.iterdir()):  # what was written there, where it can be looked at
                _remove(aside / entry.name)
                shutil.move(entry, aside / entry.name)
            return code, said
        finally:
            subprocess.run(["umount", "-l", where], check=True)
    finally:
        where.rmdir()
        aside.rename(where)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _limit(place: Path, command: Command, dice: random.Random) -> Ended:
    most = round(2 ** dice.uniform(6, 14))
    return finish(start(place, command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))))


def _clock(place: Path, command: Command, dice: random.Random) -> Ended:
    if shutil.which("faketime") is None:
        return None, ""
    return finish(start(place, command, ["faketime", dice.choice(CLOCKS)]))


def _twice(place: Path, command: Command, dice: random.Random) -> Ended:
    """The reader's complaint counts as a failure of the command."""
    one, path = start(place, command), place / command.output
    time.sleep(dice.uniform(0, 1))
    two, said = start(place, command), ""
    while one.poll() is None or two.poll() is None:
        try:
            if path.exists():
                command.read(path)
        except Exception as error:
            said = f"Traceback of a reader: {type(error).__name__}: {error}"
        time.sleep(0.01)
    ends = finish(one), finish(two)
    return max(code for code, _ in ends), "".join(text for _, text in ends) + said


FAULTS = {"kill": _kill, "error": _error, "time": _time, "full": _full, "limit": _limit, "clock": _clock, "twice": _twice}

if __name__ == "__main__":
    main()
