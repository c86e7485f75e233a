"""Mutants of a file: what a bad disk, a bad program or a bad person makes of it. The same seed gives the same mutant."""

from __future__ import annotations

import json
import random
import re
from typing import Any

BYTES = (b"\0", b"\xff", b"\x80", b"\x7f\xff\xff\xff", b"\xff" * 8, b"[", b"{", b'"', b"\n", b"%s", b"../", b"\x1b[2J")
NUMBERS = ("0", "-1", "1e999", "1e-999", "9223372036854775808", "18446744073709551616", "1.5", "100000", "NaN", "null", '"x"')
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**9, 2**70, 10**400, 10**4290, "", "x", "../x", "[/x]", "\x00\x1b[2J", [], {}, [None], {"": 0},
)  # fmt: skip


def mutant(data: bytes, seed: int) -> bytes:
    """One to four changes of `data`: bits, bytes, blocks, its end, and, as text, numbers and nesting."""
    dice = random.Random(seed)
    for _ in range(dice.choice((1, 1, 2, 4))):
        data = dice.choice(_CHANGES)(data, dice)
    return data


def changed_value(data: bytes, seed: int) -> bytes:
    """JSON with one value, anywhere in it, put in another's place, taken away, or added to."""
    dice = random.Random(seed)
    root = json.loads(data)
    places = [(parent, key) for parent, key in _places(root)]
    parent, key = dice.choice(places)
    kind = dice.randrange(4)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[dice.choice(("x", "[/x]", "", "settings", "version"))] = dice.choice(VALUES)
    else:
        parent[key] = dice.choice(VALUES)
    return json.dumps(root, indent=1).encode()


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def _flip(data: bytes, dice: random.Random) -> bytes:
    if not data:
        return b"\1"
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def _insert(data: bytes, dice: random.Random) -> bytes:
    at, what = dice.randint(0, len(data)), dice.choice(BYTES)
    over = len(what) if dice.random() < 0.5 else 0
    return data[:at] + what + data[at + over :]


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randint(0, len(data))]


def _block(data: bytes, dice: random.Random) -> bytes:
    """A block moved, doubled or taken away."""
    start, stop = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
    block, stop = data[start : min(stop, start + 4096)], min(stop, start + 4096)
    at = dice.randint(0, len(data))
    return dice.choice((data[:start] + data[stop:], data[:at] + block + data[at:], data[:start] + block * 3 + data[stop:]))


def _number(data: bytes, dice: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[: 1 << 16]))
    if not found:
        return _flip(data, dice)
    hit = dice.choice(found)
    return data[: hit.start()] + dice.choice(NUMBERS).encode() + data[hit.end() :]


def _deep(data: bytes, dice: random.Random) -> bytes:
    at, depth = dice.randint(0, len(data)), dice.choice((100, 5_000, 100_000))
    return data[:at] + dice.choice((b"[", b'{"a":', b"a.", b"(", b"\xc2")) * depth + data[at:]


def _zeros(data: bytes, dice: random.Random) -> bytes:
    """A block that was never written, as after a loss of power."""
    start = dice.randint(0, len(data))
    return data[:start] + bytes(min(512, len(data) - start)) + data[start + 512 :]


_CHANGES = (_flip, _flip, _insert, _cut, _block, _number, _number, _deep, _zeros)
