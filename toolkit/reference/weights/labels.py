"""Labels: names of classes that lie in a file beside its tensors, or in the `config.json` beside it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from toolkit.reference.weights.records import Record

KEYS = ("classes", "class_names", "CLASSES", "categories", "class_to_idx", "idx_to_class", "label2id", "id2label")
DEEPEST, SHOWN = 5, 4
_MADE_UP = re.compile(r"LABEL_\d+")  # transformers' names where nobody gave any


class Labels(NamedTuple):
    """Under which key names were found, and the names in the order of their numbers."""

    key: str
    names: tuple[str, ...]

    @property
    def note(self) -> str:
        more = f", ... ({len(self.names)})" if len(self.names) > SHOWN else ""
        shown = f"{', '.join(self.names[:SHOWN])}{more}"
        return f"the class names in `{self.key}` ({shown}) are not used: list them in `reference.classes`, one a line"


def labels_in(*contents: Any) -> Labels | None:
    """The first that are found, the least nested first."""
    left, seen = deque((content, 0) for content in contents), set[int]()
    while left:
        value, depth = left.popleft()
        held = value.__dict__ if isinstance(value, Record) else value
        if not isinstance(held, Mapping) or depth > DEEPEST or id(held) in seen:
            continue
        seen.add(id(held))
        for key in KEYS:
            if names := _ordered(held.get(key)):
                return Labels(key, names)
        left.extend((inner, depth + 1) for inner in held.values() if isinstance(inner, (Mapping, Record)))
    return None


def _ordered(held: Any) -> tuple[str, ...]:
    """A list of names, or names and numbers from 0 on either way round, as names; else none."""
    pairs = list(held.items()) if isinstance(held, Mapping) else list(enumerate(held)) if isinstance(held, (list, tuple)) else []
    numbers = {str(number): name for number, name in pairs} | {str(number): name for name, number in pairs if type(number) is int}
    names = [numbers.get(str(index)) for index in range(len(pairs))]
    if not all(isinstance(name, str) for name in names) or all(_MADE_UP.fullmatch(str(name)) for name in names):
        return ()
    return tuple(map(str, names))
