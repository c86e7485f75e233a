"""The text of a recipe: the shortest that says it, and errors in its own words."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec


def strip(value: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """Nested values without those that equal their default; a name stays."""
    result: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and isinstance(default.get(key), dict) and key != "methods":
            if nested := strip(item, default[key]):
                result[key] = nested
        elif item is not None and (key == "name" or item != default.get(key)):
            result[key] = item
    return result


# Each picture would have a shape of its own, so that no two share a batch; TensorRT's Resize does not filter against aliasing.
RESIZE_OUTSIDE = "the resize stays outside, as TensorRT's has no antialiasing; toolkit parity tells what a graph's would change"


def explain(message: str, values: dict[str, Any], root: Any) -> str:
    """msgspec's message on `values` as a `root`, with the key, the value that stands there, and what is allowed."""
    where = re.search(r" - at `\$\.?([^`]*)`", message)
    path = where[1] if where else ""
    value, kind = _look_up(values, root, [part for part in re.split(r"[.\[\]]+", path) if part])
    unknown = re.match(r"Object contains unknown field `([^`]+)`", message)
    if unknown and isinstance(kind, type):
        table = f"[{path}]" if path else "the top level"
        allowed = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        given = value.get(unknown[1]) if isinstance(value, dict) else None
        return f"unknown key `{unknown[1]}` = {given!r:.200} in {table}; allowed are {allowed}"
    said = message.split(" - at ")[0]
    choices = [c for kind in getattr(kind, "__args__", ()) for c in getattr(kind, "__args__", (kind,)) if isinstance(c, str)]
    hint = f"; allowed are {', '.join(choices)}" if choices else ""
    if said.startswith("Expected `array`") and isinstance(value, (int, float, str)):
        shape = getattr(kind, "__args__", ())
        listed = [value] * (1 if ... in shape else max(1, len(shape)))
        hint = f"; write a list: {path.rpartition('.')[2]} = {json.dumps(listed)}"
    if path == "preprocess.inside" and value == "resize":
        hint = f"; {RESIZE_OUTSIDE}"
    shown = f"`{path}` = {value!r:.200}: " if path and not isinstance(value, dict) else f"[{path}]: " if path else ""
    return f"{shown}{said[0].lower()}{said[1:]}{hint}"


def _look_up(value: Any, kind: Any, path: list[str]) -> tuple[Any, Any]:
    """What stands at `path` in the file, and the type that belongs there; None where there is no such thing."""
    for part in path:
        if isinstance(value, list):
            value = value[int(part)] if part.isdigit() else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
        fields = msgspec.structs.fields(kind) if isinstance(kind, type) else ()
        kind = next((field.type for field in fields if field.encode_name == part), None)
    return value, kind
