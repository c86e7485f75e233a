"""Write: files of results -> the report's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from toolkit.disk.files import decode_json, read_regular, write_atomically
from toolkit.errors import MeasurementError
from toolkit.harness.results import Results
from toolkit.images.dataset import Images
from toolkit.report.gallery import Picture, galleries
from toolkit.report.junit import junit
from toolkit.report.page import html
from toolkit.report.pictures import pictures
from toolkit.report.summary import merge
from toolkit.report.table import markdown


def write_report(
    paths: Sequence[str | Path],
    page: Path | None,
    markdown_file: Path | None = None,
    junit_file: Path | None = None,
    whys: Sequence[str | Path] = (),
) -> Results:
    """Read and merge the results at `paths`, write each report that has a path, and give the merged results back.

    `whys` are files that `toolkit why --json` printed: their noise is drawn on the network.

    Raises MeasurementError: results that cannot be read or merged, a folder that cannot be written.
    """
    results = merge([Results.read(path) for path in paths])
    found: dict[str, Images | None] = {}

    def picture_of(data: str) -> Picture | None:
        if data not in found:
            found[data] = pictures(results, data)
        images = found[data]
        return images.picture if images else None

    if page is not None:
        write_page(page, html(results, galleries(results, picture_of), dict(map(read_noise, whys))))
    if markdown_file is not None:
        write_page(markdown_file, markdown(results))
    if junit_file is not None:
        write_page(junit_file, junit(results))
    return results


class _Layer(msgspec.Struct):
    """What of a layer's loss is read here."""

    name: str
    share: float


class _Why(msgspec.Struct):
    engine: str
    layers: tuple[_Layer, ...]


def read_noise(path: str | Path) -> tuple[str, dict[str, float]]:
    """(engine, layer -> its share of the noise) of a file that `toolkit why --json` printed. Raises MeasurementError."""
    again = "Make it: toolkit why ENGINE --json > why.json"
    try:
        found = msgspec.convert(decode_json(read_regular(Path(path))), _Why)
    except OSError as error:
        raise MeasurementError(f"{path} cannot be read: {error.strerror or error}", remedy=again) from error
    except ValueError as error:
        raise MeasurementError(f"{path} is not what `toolkit why --json` prints: {error}", remedy=again) from error
    return found.engine, {layer.name: layer.share for layer in found.layers}


def write_page(path: Path, text: str) -> None:
    """Write a file in one step. Raises MeasurementError where it cannot be written."""
    try:
        write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        why = error.strerror or str(error)
        raise MeasurementError(f"cannot write {path}: {why}", remedy="Choose another file or folder") from error
