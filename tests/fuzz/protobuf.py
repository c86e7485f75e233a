"""Mutants of protobuf messages that are still protobuf: one field, anywhere, is changed, doubled, moved or taken away."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

NUMBERS = (0, 1, -1, 2, 7, 255, 65_536, 10**9, 2**31 - 1, 2**40, 2**63 - 1, -(2**63))
REALS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"))
TEXTS = ("", "x", "input", "N", "../x", "[/x]", "\x1b[2J", "a" * 10_000, "Loop", "Resize", "ConstantOfShape")


def changed_message(message: Any, dice: random.Random) -> None:
    """Change `message` in place."""
    parent = dice.choice(list(_messages(message)))
    described = parent.DESCRIPTOR.fields
    held = [field for field in described if _is_set(parent, field)]
    field = dice.choice(held if held and dice.random() < 0.8 else described)
    (_change_several if field.is_repeated else _change_one)(parent, field, dice)


def _is_set(message: Any, field: Any) -> bool:
    return bool(len(getattr(message, field.name))) if field.is_repeated else message.HasField(field.name)


def _messages(message: Any) -> Any:
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)


def _change_one(message: Any, field: Any, dice: random.Random) -> None:
    if dice.random() < 0.3 or field.type == Field.TYPE_MESSAGE:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(field, getattr(message, field.name), dice))


def _change_several(message: Any, field: Any, dice: random.Random) -> None:
    values = getattr(message, field.name)
    at, kind = dice.randrange(len(values)) if len(values) else 0, dice.randrange(4)
    if len(values) and kind == 0:
        del values[at]
    elif len(values) > 1 and kind == 1:  # another place
        kept = list(values)
        kept.insert(dice.randrange(len(kept)), kept.pop(at))
        message.ClearField(field.name)
        values.extend(kept)
    elif field.type == Field.TYPE_MESSAGE:
        values.add().CopyFrom(values[at]) if len(values) else values.add()
    elif len(values) and kind == 2:
        values[at] = _value(field, values[at], dice)
    else:
        values.extend([_value(field, None, dice)] * dice.choice((1, 1, 9)))


def _value(field: Any, before: Any, dice: random.Random) -> Any:
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return dice.choice(REALS)
    if field.type == Field.TYPE_STRING:
        return dice.choice(TEXTS)
    if field.type == Field.TYPE_BYTES:
        return (before or b"")[: dice.randrange(64)] + dice.randbytes(dice.choice((0, 1, 4)))
    if field.type == Field.TYPE_ENUM:
        return dice.choice([value.number for value in field.enum_type.values])
    most = 2**31 - 1 if field.type == Field.TYPE_INT32 else 2**63 - 1
    least = 0 if field.type == Field.TYPE_UINT64 else -most - 1
    return max(least, min(most, dice.choice((*NUMBERS, (before or 0) + 1, (before or 0) - 1))))
