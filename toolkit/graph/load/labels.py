"""Labels: names of classes that exporters put into a file. They are said, and not used."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from toolkit.graph.edit import attribute

KEYS = ("names", "classes", "class_names", "labels", "categories", "id2label", "label_names", "character")
NAMING = {"ZipMap": ("classlabels_strings",), "LabelEncoder": ("values_strings",)}
MOST, SHOWN = 1 << 20, 4  # characters that are looked at, names that are shown
UNUSED = "are not used: list them in `reference.classes`, one a line"
_MADE_UP = re.compile(r"LABEL_\d+")  # transformers' names where nobody gave any


def texts_of(model: ir.Model) -> dict[str, str]:
    """Where names may be: the metadata, and the operators that put names to a classifier's columns."""
    found = dict(model.metadata_props)
    for node in model.graph:
        for key in NAMING.get(node.op_type, ()):
            names = attribute(node, key, ())
            if names:
                found[node.op_type] = repr([name.decode() if isinstance(name, bytes) else str(name) for name in names])
    return found


def labels_note(texts: Mapping[str, str], columns: int, place: str = "the file") -> str | None:
    """What to say of as many names as there are columns; None where there are none. Ultralytics writes `{0: 'ant', 1: 'bee'}`,
    PaddlePaddle one a line, others lists in JSON or commas between names."""
    for key in (*KEYS, *NAMING):
        names = _names(texts.get(key, "")[:MOST])
        if len(names) == columns > 1:
            return f"the class names in {place} (`{key}`: {listed(names)}) {UNUSED}"
    return None


def listed(names: Sequence[str]) -> str:
    """The first ones, and how many there are."""
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)})" if len(names) > SHOWN else "")


def ordered(held: Any) -> tuple[str, ...]:
    """A list of names, or names and numbers from 0 on either way round, as names; else none."""
    pairs = list(held.items()) if isinstance(held, Mapping) else list(enumerate(held)) if isinstance(held, (list, tuple)) else []
    numbers = {str(number): name for number, name in pairs} | {str(number): name for name, number in pairs if type(number) is int}
    names = [numbers.get(str(index)) for index in range(len(pairs))]
    if not all(isinstance(name, str) and name for name in names) or all(_MADE_UP.fullmatch(str(name)) for name in names):
        return ()
    return tuple(map(str, names))


def _names(text: str) -> tuple[str, ...]:
    try:
        held: Any = literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        held = re.split(r"\n" if "\n" in text else r"\s*,\s*", text.strip())
    return ordered(held)
