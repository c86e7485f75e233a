"""TOML within bounds: the standard library's reader takes seconds and gigabytes for keys of 50,000 parts."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from toolkit.disk.files import refuse_long

SIZE = 1 << 20  # characters
DEPTH = 32  # parts of a key, and brackets within brackets
# Strings (each ends with its line or the file, should it not be closed) and comments; each alternative takes what it begins with.
_QUOTED = re.compile(r'"""(?:[^\\]|\\.)*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)|"(?:[^"\\\n]|\\.)*"?|\'[^\'\n]*\'?|#[^\n]*', re.DOTALL)
_BETWEEN_KEYS = re.compile(r"[^\w\-. \t]+")


def read_toml(text: str) -> dict[str, Any]:
    """TOML text -> plain values. Raises ValueError: no TOML, or larger or deeper than anything of ours."""
    if len(text) > SIZE:
        raise ValueError(f"it is longer than {SIZE} characters")
    bare = _QUOTED.sub("x", text)
    if any(run.count(".") > DEPTH for run in _BETWEEN_KEYS.split(bare)):
        raise ValueError(f"a key has more than {DEPTH} parts")
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH:
            raise ValueError(f"brackets are nested more than {DEPTH} deep")
    found = tomllib.loads(text)
    refuse_long(found)
    return found
