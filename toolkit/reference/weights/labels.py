"""Labels: names of classes that lie in a file beside its tensors, or in the `config.json` beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from toolkit.graph.load.labels import UNUSED, listed, ordered
from toolkit.reference.weights.records import Record

KEYS = ("classes", "class_names", "CLASSES", "categories", "class_to_idx", "idx_to_class", "label2id", "id2label")
DEEPEST = 5


class Labels(NamedTuple):
    """Under which key names were found, and the names in the order of their numbers."""

    key: str
    names: tuple[str, ...]

    @property
    def note(self) -> str:
        return f"the class names in `{self.key}` ({listed(self.names)}) {UNUSED}"


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
            if names := ordered(held.get(key)):
                return Labels(key, names)
        left.extend((inner, depth + 1) for inner in held.values() if isinstance(inner, (Mapping, Record)))
    return None
