"""Protobuf's text format, written from plain values: what a `config.pbtxt` of Triton is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Name(str):
    """The name of an enum's value, which stands without quotes."""


def to_text(message: Mapping[str, Any], indent: int = 0) -> str:
    """A message as text. A mapping is a message, a sequence a repeated field; values are str, Name, bool, int.

    A `map<>` field is a sequence of messages with `key` and `value`, as the format itself has it.
    """
    lines = []
    for key, value in message.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            lines += _field(key, value, indent)
        elif any(isinstance(one, Mapping) for one in value):
            lines += [line for one in value for line in _field(key, one, indent)]
        else:
            lines.append(f"{'  ' * indent}{key}: [{', '.join(map(_scalar, value))}]")
    return "\n".join(lines)


def entries(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A `map<>` field."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _field(key: str, value: Any, indent: int) -> list[str]:
    space = "  " * indent
    if isinstance(value, Mapping):
        return [f"{space}{key} {{", *([to_text(value, indent + 1)] if value else []), f"{space}}}"]
    return [f"{space}{key}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Name) or not isinstance(value, str):
        return str(value)
    return '"' + "".join(_escaped(character) for character in value) + '"'


def _escaped(character: str) -> str:
    """As the format's string literals want it: bytes outside printable ASCII as three octal digits each."""
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
