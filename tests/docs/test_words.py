"""One word for one thing: no page, message or docstring uses a word that the glossary lists as not used."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, check=True, text=True).stdout.split()
ROOTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "DESIGN.md")
PAGES = [name for name in LISTED if name.startswith("docs/") or name in ROOTS]
CODE = subprocess.run(["git", "ls-files", "toolkit/*.py"], cwd=ROOT, capture_output=True, check=True, text=True).stdout.split()
TABLE = "## For writers"
COMMENT = re.compile(r"^[^\n]*?(?:(?:^|[ \t])#[ \t]([^\n]*)|$)", re.M)  # of a line of code, what stands behind its #


@cache
def unused() -> dict[str, str]:
    """Each word of the table's first column, and what is written instead."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", GLOSSARY.read_text(encoding="utf-8").split(TABLE)[1], re.M)
    return {word.strip(): instead for words, instead in rows[1:] for word in words.split(",")}


def prose(text: str) -> str:
    """Markdown without code spans and targets of links, and of a fence its comments, line for line."""
    text = re.sub(r"^```.*?^```", lambda match: COMMENT.sub(r"\1", match[0]), text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`|\]\([^)\n]*\)", "", text.split(TABLE)[0])


@cache
def pattern(word: str) -> re.Pattern[str]:
    """A word or a phrase, over line ends; of a spelling, every form."""
    forms = re.sub(r"(?<=is)e$", r"(?!t)\\w*", re.sub(r"(?<=our)$|(?<=centr)e$", r"\\w*", word))  # optimise, not optimist
    return re.compile(r"\b" + r"\s+".join(forms.split()) + r"\b", re.I)


def found(text: str) -> list[str]:
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: '{match[0]}': {instead}"
        for word, instead in unused().items()
        for match in pattern(word).finditer(text)
    ]


def test_the_table_is_read():
    assert len(unused()) > 20 and unused()["anew"] == "again"
    assert [line.split("'")[1] for line in found("Built anew, the\ntruth; quantisation, colours")] == [
        "the\ntruth",
        "anew",
        "quantisation",
        "colours",
    ]
    assert found(prose("`--no-proof` and [proof](proof.md#proof)\n```bash\nanew x  # built anew\n```\n")) == [
        "line 1: 'proof': verdict, judge, check, show",
        "line 3: 'anew': again",
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_uses_the_words_of_the_glossary(name):
    assert found(prose((ROOT / name).read_text(encoding="utf-8"))) == []


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The line and text of every message and docstring of a module: its strings of three words and more, without code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") >= 2:
            yield node.lineno, re.sub(r"^ *(>>>|\.\.\.).*$|`[^`]*`|--[a-z-]+|\(mended - broken.*$", "", node.value, flags=re.M)


def test_messages_and_docstrings_use_the_words_of_the_glossary():
    assert list(texts('"""Held to\n    >>> engine.proof or so\n"""')) == [(1, "Held to\n\n")]
    wrong = [
        f"{name}:{number}: {said}"
        for name in CODE
        for number, text in texts((ROOT / name).read_text(encoding="utf-8"))
        for said in found(text)
    ]
    assert wrong == []


def test_a_term_is_defined_once_and_in_order():
    terms = re.findall(r"^\*\*(.+)\*\*$", GLOSSARY.read_text(encoding="utf-8"), re.M)
    assert len(terms) > 20 and terms == sorted(set(terms), key=str.lower)
