"""Every command and every piece of Python in the docs runs, page by page, in the order of the page.

A comment above a fence, which no reader sees, says where one does not: `<!-- skip: why -->`, or `<!-- exit: 2 -->` for a
command that is shown because it fails.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
FENCE = re.compile(r"(?:^<!-- (skip|exit): ([^>]*?) -->\n)?^```([\w{}-]*)\n(.*?)^```$", re.M | re.S)
RUN = {"bash", "console", "python"}
SHOWN = {"text", "toml", "json", "yaml"}  # what is not run: outputs and files


class Snippet(NamedTuple):
    """A fence: its line, language and text, and what the comment above it says."""

    line: int
    language: str
    text: str
    skip: str
    exits: tuple[int, ...]


def snippets(path: Path) -> list[Snippet]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        mark, said, language, body = match.groups()
        exits = tuple(map(int, re.findall(r"\d+", said.partition(",")[0]))) if mark == "exit" else (0,)
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Snippet(line, language, body, said if mark == "skip" else "", exits))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_fence_says_what_it_is(path):
    told = snippets(path)
    assert len(told) == path.read_text(encoding="utf-8").count("\n```") / 2, "a fence that is not closed, or is indented"
    assert {s.line: s.language for s in told if s.language not in RUN | SHOWN} == {}


RUNNABLE = [path for path in PAGES if any(s.language in RUN and not s.skip for s in snippets(path))]


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_snippets_of_a_page_run(path, page_folder, capfd):
    names: dict[str, Any] = {"batch": np.zeros((2, 1, 28, 28), np.float32), "image": np.zeros((1, 28, 28), np.float32)}
    for snippet in snippets(path):
        if snippet.language not in RUN or snippet.skip:
            continue
        where = f"{path.relative_to(ROOT)}:{snippet.line}"
        if snippet.language == "python":
            exec(compile(snippet.text, where, "exec"), names)
            continue
        commands = _commands(snippet.text)
        for number, command in enumerate(commands, 1):
            expected = snippet.exits if number == len(commands) else (0,)
            code = _run(command)
            assert code in expected, f"{where}: {command}\nexit code {code}\n{''.join(capfd.readouterr())}"


def _commands(text: str) -> list[str]:
    """The lines of a shell, joined where one ends in a backslash; of a console only those behind a prompt."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _run(command: str) -> int:
    """The exit code: a plain call of `toolkit` runs in this process, which has everything imported already; the rest in bash."""
    words = shlex.split(command, comments=True)
    if words[0] != "toolkit" or set(command) & set("|><;&`$*"):
        return subprocess.run(["bash", "-euo", "pipefail", "-c", command], timeout=300).returncode
    from toolkit.cli.main import main

    before = sys.argv
    sys.argv = words
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
