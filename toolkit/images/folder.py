"""A folder of images -> its files in order, and their labels where it has a folder for each class.

What is hidden, or left by a file manager, is no image and no class, at any depth; each folder is read once, so that links
cannot go in circles; only regular files count. What was left out is counted, and said.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import DataError

SUFFIXES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
NO_IMAGE = f"Images end in {', '.join(SUFFIXES)}"
_LITTER = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "#recycle", "#snapshot", "@recycle",
    "@recently-snapshot", "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_MOST_LABELS = 100_000  # folders numbered beyond it are named by something else, such as a date


class Files(NamedTuple):
    """What a folder holds: paths, labels int64 [count] and the names that they count through, and remarks in words."""

    paths: list[Path]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    remarks: tuple[str, ...]


def read_folder(root: Path, classes: Sequence[str] | None, labeled: bool = True) -> Files:
    """The images under `root`, interleaved by class where there is a folder a class. Raises DataError.

    Where labels do not matter (`labeled` is False), folders need be no classes: they may be empty, and lie beside images. Names
    often begin with a class or a date, so within a folder the SHA-256 of a path gives the order: any share of it is a fair one.
    """
    skipped: Counter[str] = Counter()
    loose, folders = _entries(root, skipped)
    loose = sorted(loose) if labeled else _mixed(loose, root)
    if not folders:
        if not loose:
            raise DataError(f"{root} holds no image{_of(skipped)}", remedy=NO_IMAGE)
        return Files(loose, None, None, _remarks(root, skipped))
    if loose and labeled:
        what = f"{root} holds both images ({min(loose).name}, ...) and folders ({folders[0].name}, ...)"
        raise DataError(what, remedy="Keep only one of the two")
    names, number, said = numbering(root, sorted(folder.name for folder in folders), classes) if labeled else (None, {}, ())
    known = {_id(folder) for folder in (root, *folders)}
    found = [(rank, "", path) for rank, path in enumerate(loose)]
    for folder in folders:
        inside = _images_under(folder, known, skipped)
        if not inside and labeled:
            raise DataError(f"the class folder {folder} holds no image", remedy=NO_IMAGE)
        found += [(rank, folder.name, path) for rank, path in enumerate(inside if labeled else _mixed(inside, folder))]
    found.sort(key=lambda item: item[:2])
    if not found:
        raise DataError(f"{root} holds no image{_of(skipped)}", remedy=NO_IMAGE)
    if not labeled:
        return Files([path for _, _, path in found], None, None, _remarks(root, skipped))
    labels = np.array([number[name] for _, name, _ in found], np.int64)
    return Files([path for _, _, path in found], labels, names, (*_remarks(root, skipped), *said))


def _mixed(paths: list[Path], root: Path) -> list[Path]:
    """Those paths under `root` in the order of their SHA-256 within it."""
    return sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path.relative_to(root))).digest())


def with_folders(paths: Sequence[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Each folder among `paths` as the images under it, at any depth and in order; and what was left out. Raises DataError."""
    found, remarks = list[Path](), list[str]()
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        skipped: Counter[str] = Counter()
        inside = _images_under(path, set(), skipped)
        if not inside:
            raise DataError(f"{path} holds no image{_of(skipped)}", remedy=NO_IMAGE)
        found += inside
        remarks += _remarks(path, skipped)
    return found, tuple(remarks)


def images_under(root: Path) -> list[Path]:
    """Every image in `root` at any depth, sorted; classes play no part. Raises DataError where a folder cannot be read."""
    return _images_under(root, {_id(root)}, Counter())


def numbering(
    root: Path, folders: list[str], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int], tuple[str, ...]]:
    """The class names, the label of each folder, and what should be said. Raises DataError.

    In this order: names (or the first word of a name) that are the model's own, as they stand or by their words alone; whole
    numbers, which are the labels; the order of the names, where there are as many as the model has classes.
    """
    exactly, loosely = _named(folders, classes or ())
    if len(exactly) == len(folders):
        return tuple(classes or ()), exactly, ()
    if all(name.isascii() and name.isdecimal() and int(name) < _MOST_LABELS for name in folders):
        return _numbered(root, {name: int(name) for name in folders}, classes)
    if len(loosely) == len(set(loosely.values())) == len(folders):
        what = "are matched to the model's class names without regard to case, to what is between words, and to numbers in front"
        return tuple(classes or ()), loosely, (f"{root}: its folders {what}",)
    if {name.casefold() for name in folders} <= _SPLITS:
        one = next((name for name in folders if not name.casefold().startswith("train")), folders[0])
        what = f"{root} holds the parts of a data set ({', '.join(folders)}), and no folder a class"
        raise DataError(what, remedy=f"Give one of them, such as {root / one}")
    known = loosely | exactly
    odd = next((name for name in folders if name not in known), folders[0])
    moved = next((name for label, name in enumerate(folders) if known.get(name, label) != label), None)
    if classes is not None and (len(classes) != len(folders) or moved is not None):
        what = f"{root} has {len(folders)} class folders, the model {len(classes)}, and '{odd}' is not one of their names"
        what += f", while '{moved}' is the name of class {known[moved]}" if len(classes) == len(folders) and moved else ""
        raise DataError(what, remedy="Name the folders as the model names its classes, or give all of them")
    said = [f"{root}: its folders are not the model's class names; they are taken in their order"] if classes else []
    first = next((pair for pair in zip(folders, sorted(folders, key=_natural), strict=True) if pair[0] != pair[1]), None)
    if first is not None:
        said.append(f"{root}: labels follow the names of the folders as text: '{first[0]}' comes before '{first[1]}'")
    return tuple(classes or folders), {folder: label for label, folder in enumerate(folders)}, tuple(said)


def _named(folders: list[str], classes: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The labels of the folders that bear a class's name, or the first word of one; and of those that bear its words.

    What two classes are called by is no name of either.
    """
    exactly = _unique([(name.split() or [""])[0] for name in classes]) | _unique(classes)
    words = _unique([_words(name) for name in classes])
    loosely = {}
    for folder in folders:
        found = words.get(_words(folder), words.get(re.sub(r"^\d+ ", "", _words(folder))))
        if found is not None:
            loosely[folder] = found
    return {folder: exactly[folder] for folder in folders if folder in exactly}, loosely


def _unique(names: Sequence[str]) -> dict[str, int]:
    counts = Counter(names)
    return {name: label for label, name in enumerate(names) if name and counts[name] == 1}


def _words(name: str) -> str:
    composed = unicodedata.normalize("NFKC", name)  # macOS' archives hold an accent as a character of its own
    return " ".join(re.findall(r"[^\W_]+", composed.casefold()))


def _natural(name: str) -> list[str | int]:
    """A key that sorts 10 behind 9."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]


def _numbered(
    root: Path, number: dict[str, int], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int], tuple[str, ...]]:
    """Folders named by whole numbers: the numbers are the labels."""
    low, high = min(number.values()), max(number.values())
    if len(set(number.values())) < len(number):
        twice = next(name for name in number if list(number.values()).count(number[name]) > 1)
        raise DataError(f"{root} has two class folders of the number {number[twice]}", remedy="Keep one of them")
    if classes is not None and high >= len(classes):
        what = f"{root} has a class folder for number {high}, the model's classes are 0 to {len(classes) - 1}"
        raise DataError(what, remedy="Number the folders from 0, or name them as the model names its classes")
    said = [f"{root}: its folders are named by whole numbers, which are taken as the labels"]
    if low > 0:
        said.append(f"{root}: the lowest label is {low}; a model's first class is 0")
    return tuple(classes or map(str, range(high + 1))), number, tuple(said)


def _images_under(folder: Path, known: set[tuple[int, int]], skipped: Counter[str]) -> list[Path]:
    """Every image in a class folder, at any depth. `known` are folders that are not to be read again, such as other classes."""
    found, waiting, seen = list[Path](), [folder], set(known)
    while waiting:
        files, folders = _entries(waiting.pop(), skipped)
        found += files
        for inner in folders:
            if (place := _id(inner)) in seen:
                skipped["link(s) to a folder that is read already"] += 1
                continue
            seen.add(place)
            waiting.append(inner)
    return sorted(found)


def _entries(folder: Path, skipped: Counter[str]) -> tuple[list[Path], list[Path]]:
    """The images and the folders right in `folder`; everything else is counted."""
    files, folders = list[Path](), list[Path]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _LITTER:
                    skipped["hidden or left by a file manager"] += 1
                elif entry.is_dir():
                    folders.append(Path(folder, entry.name))
                elif not entry.is_file():
                    skipped["no regular file, or a broken link"] += 1
                elif Path(entry.name).suffix.lower() in SUFFIXES:
                    files.append(Path(folder, entry.name))
                else:
                    skipped[f"'{Path(entry.name).suffix.lower() or entry.name}'"] += 1
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}", remedy="Make it readable") from error
    return files, sorted(folders)


def _id(folder: Path) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}", remedy="Make it readable") from error
    return found.st_dev, found.st_ino


def _remarks(root: Path, skipped: Counter[str]) -> tuple[str, ...]:
    return (f"{root}: left out{_of(skipped).removeprefix(';')}",) if skipped else ()


def _of(skipped: Counter[str]) -> str:
    order = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {what}" for what, count in order[:6]]
    return f"; {', '.join(shown)}{', ...' if len(skipped) > 6 else ''}" if shown else ""
