"""Class names in the model's order, as people write them: lines, numbered lines, tables and JSON."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from toolkit.disk.files import read_regular
from toolkit.errors import DataError

MOST_NAMES = 64 << 20  # bytes of a file of class names
PACKAGED = Path(__file__).parents[1] / "packaged"
_HEADS = {"class", "classes", "category", "id", "idx", "index", "label", "labels", "name", "names", "no", "number", "target"}


def read_classes(spec: str) -> tuple[str, ...]:
    """Class names in the model's order: a text file with one a line, each with its number or none; JSON, a list or numbers and
    names either way round; or `packaged:NAME`. Raises DataError."""
    kind, _, name = spec.partition(":")
    path = PACKAGED / f"{name}-classes.txt" if kind == "packaged" else Path(spec)
    if kind == "packaged" and path.parent != PACKAGED:  # the name is a stranger's, where an engine's recipe holds it
        raise DataError(f"no class names '{name:.80}' are packaged", remedy="Give a text file, one name a line")
    try:
        text = read_regular(path, MOST_NAMES).decode("utf-8-sig").strip()  # editors on Windows write a mark before the first name
    except (OSError, ValueError) as error:  # the latter of other encodings, and of names that hold a NUL
        raise DataError(f"the class names {path} cannot be read: {error}", remedy="Give a text file, one name a line") from error
    lines = _names_in_json(text, path) if _is_json(text) else tuple(line.strip() for line in text.splitlines())
    if "" in lines or not lines:
        raise DataError(f"{path}: line {lines.index('') + 1 if lines else 1} names no class")
    return _by_number(lines[1:] if _is_head(lines[0]) and len(lines) > 1 else lines)


def _is_head(line: str) -> bool:
    """Whether it is the first line of a table: several cells that say what stands below, such as `index,name`."""
    words = re.findall(r"[^\W_]+", line.casefold())
    return len(re.split(r"[,;\t]", line)) > 1 and bool(words) and set(words) <= _HEADS


def _by_number(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The names in the order of their numbers, which are those from 0 or 1 on, in front of every name or behind it as in a table;
    the lines themselves where they are not."""
    for pattern in (r"(?P<number>[0-9]{1,9})[\s,;:]+(?P<name>.+)", r"(?P<name>.+)[,;\t]\s*(?P<number>[0-9]{1,9})"):
        found = [match for line in lines if (match := re.fullmatch(pattern, line))]
        names = {int(match["number"]): _unquoted(match["name"].rstrip()) for match in found}
        if len(found) == len(lines) and sorted(names) in [list(range(first, first + len(lines))) for first in (0, 1)]:
            return tuple(names[number] for number in sorted(names))
    return lines


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")+"', name) else name


def _is_json(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), (dict, list))
    except (ValueError, RecursionError):  # names, the first of which may begin with a bracket
        return False


def _names_in_json(text: str, path: Path) -> tuple[str, ...]:
    """`["ant", ...]`, `{"0": "ant", ...}` or `{"ant": 0, ...}`. Raises DataError."""
    try:
        found = msgspec.json.decode(text, type=list[str] | dict[str, str | int])
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        by_number = {v if isinstance(v, int) else int(k): k if isinstance(v, int) else v for k, v in pairs}
        return tuple(str(by_number[index]) for index in range(len(found)))
    except (ValueError, LookupError) as error:
        what = f"the class names {path} are JSON, but no list of names, and no names by the numbers from 0 on"
        raise DataError(what, remedy="Give a text file, one name a line") from error
