"""Names: what the classes of a reference are called, and whether names, folders and columns are as many."""

from __future__ import annotations

import numpy as np

from toolkit.errors import DataError
from toolkit.images.dataset import Images
from toolkit.manifest import Manifest
from toolkit.outputs import Outputs

IMAGENET = 1000
SHOWN = 4  # names in a note


def label_names(names: tuple[str, ...] | None, outputs: Outputs, columns: int, where: str) -> tuple[str, ...] | None:
    """The names of `reference.classes`, once they are as many as there are classes. Raises DataError."""
    count = outputs.classes(columns)
    if names is None or len(names) == count:
        return names
    what = f"{where} answers with {columns} column{'s' * (columns > 1)}, and `reference.classes` names {len(names)} classes"
    again = "Give the names that belong to this model, one a line, in the order of its columns"
    raise DataError(what, remedy=_remedy(columns, len(names), outputs, again))


def _remedy(columns: int, names: int, outputs: Outputs, otherwise: str) -> str:
    """One column too many is a background class where there are TensorFlow's 1001; else a name may be missing as well."""
    if outputs.binary:
        return "One column tells two classes apart: name both, the one that a low value means first"
    if columns != names + 1 or columns == IMAGENET:
        return otherwise
    background = "set `reference.offset = 1` to leave it out"
    if names == IMAGENET:
        return f"TensorFlow's ImageNet models count 1001, a background class first: {background}"
    return f"{otherwise}. If instead its first column is a background class, {background}"


def refuse_unfit(manifest: Manifest, images: Images, who: str = "the reference") -> None:
    """Raises DataError where a label is no class that `manifest` answers, or where labels come from folders that are not as many
    as its classes and it has no names to match them by, so that a label means another one. `who` is the message's word for it."""
    count = manifest.meaning.classes(manifest.columns)
    names = images.classes
    labels = images.labels if images.labels is not None and not manifest.meaning.multilabel else np.zeros(1, np.int64)
    lowest, highest = int(labels.min()), int(labels.max())
    if highest >= count:
        what = f"{images.where} has the label {highest}, and {who} answers the classes 0 to {count - 1}"
        remedy = "Folders named by whole numbers are labels; where they are names, list them in `reference.classes`, one a line"
        if lowest == 1:
            remedy = f"They are counted from 1: number the folders from 0. {remedy}"
        raise DataError(what, remedy=remedy)
    if images.labels is None or names is None or manifest.classes or manifest.meaning.multilabel or len(names) == count:
        return
    if _numbers(names):  # they say their class themselves
        return
    what = f"{images.where} has {len(names)} class folders, and {who} answers {count} classes"
    missing = "Name the model's classes in `reference.classes`, one a line: folders are matched by name, and some may be missing"
    raise DataError(what, remedy=_remedy(count, len(names), manifest.meaning, missing))


def called_by_folders(manifest: Manifest, images: Images | None) -> tuple[str, ...] | None:
    """The names of the class folders, where they are as many as the classes of the reference (`manifest`)."""
    names = images.classes if images is not None and images.labels is not None else None
    if names is None or manifest.meaning.multilabel or _numbers(names):
        return None
    return names if len(names) == manifest.meaning.classes(manifest.columns) else None


def said(names: tuple[str, ...], images: Images) -> str:
    """The note of it."""
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return f"the classes are named after the folders of {images.where}: {', '.join(names[:SHOWN])}{more}"


def _numbers(names: tuple[str, ...]) -> bool:
    return all(name.isdigit() for name in names)
