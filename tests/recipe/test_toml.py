"""TOML that no recipe is: refused in a sentence, in a moment."""

from __future__ import annotations

import time

import pytest

from toolkit.errors import RecipeError
from toolkit.recipe import Recipe
from toolkit.recipe.toml import read_toml

DEEP = {
    "a key of 50,000 parts": "a" + ".a" * 50_000 + " = 1",
    "with blanks": "a" + " . a" * 50_000 + " = 1",
    "quoted": '"a"' + '."a"' * 50_000 + " = 1",
    "a table of 50,000 parts": "[" + "a." * 50_000 + "a]",
    "many tables": "\n".join(f"[{'a.' * 30}a{i}]" for i in range(20_000)),
    "5,000 brackets": "x = " + "[" * 5000 + "]" * 5000,
    "5,000 braces": "x = " + "{a=" * 5000 + "1" + "}" * 5000,
    "open strings": 'x = "' + '\\"' * 200_000,
    "open long strings": 'x = """' + '\\"""' * 200_000,
    "many open strings": '"\n' * 200_000,
    "a number": "x = " + "1" * 500_000,
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_it_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(RecipeError, match=r"not valid TOML|unknown|missing") as refused:
        Recipe.parse(text)
    assert time.process_time() - start < 5  # of this process alone: a hang, and not a busy machine
    assert len(str(refused.value)) < 2000


def test_dots_and_brackets_in_strings_and_comments_are_no_depth() -> None:
    dots, brackets = "a." * 100 + "a", "[" * 100
    text = f'# {dots} {brackets}\n'
    text += f'a = "{dots}{brackets}\\"{brackets}" # {brackets}\nb = \'{dots}\'\nc = """\n{brackets}"{dots}"""\n'
    assert read_toml(text)["b"] == dots
    assert read_toml("x = [" + "[1], " * 1000 + "]")["x"] == [[1]] * 1000
