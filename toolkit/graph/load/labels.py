"""Labels: names of classes that exporters put into a file. They are said, and not used."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from toolkit.graph.edit import attribute

KEYS = ("names", "classes", "class_names", "labels", "categories", "id2label", "label_names", "character")
NAMING = {"ZipMap": ("classlabels_strings",), "LabelEncoder": ("values_strings",)}
MOST, SHOWN = 1 << 20, 4  # characters that are looked at, names that are shown


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
            more = f", ... ({columns})" if columns > SHOWN else ""
            shown = f"{', '.join(names[:SHOWN])}{more}"
            where = f"the class names in {place} (`{key}`: {shown})"
            return f"{where} are not used: list them in `reference.classes`, one a line"
    return None


def _names(text: str) -> tuple[str, ...]:
    try:
        held: Any = literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        held = re.split(r"\n" if "\n" in text else r"\s*,\s*", text.strip())
    if isinstance(held, dict):
        numbers = {str(number): name for number, name in held.items()} | {str(number): name for name, number in held.items()}
        held = [numbers.get(str(index)) for index in range(len(held))]
    if not isinstance(held, (list, tuple)) or not all(isinstance(name, str) and name for name in held):
        return ()
    if all(re.fullmatch(r"LABEL_\d+", name) for name in held):  # transformers' names where nobody gave any
        return ()
    return tuple(held)
