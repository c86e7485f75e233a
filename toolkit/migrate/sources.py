"""Sources: what was given to `toolkit migrate`, each read by the reader that it is for."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from toolkit.disk.files import read_regular
from toolkit.errors import RecipeError
from toolkit.migrate.cache import Cache, is_cache
from toolkit.migrate.old import OldBuild, is_there
from toolkit.migrate.polygraphy import is_polygraphy, read_polygraphy
from toolkit.migrate.script import is_script, read_script
from toolkit.migrate.tables import is_table, read_scales
from toolkit.migrate.trtexec import read_line

MOST = 1 << 18  # bytes of a command line or a script


def read_sources(sources: list[str]) -> tuple[OldBuild, Cache | None]:
    """What each of them says: one build at most, and one calibration cache at most, which the build may name.

    Raises RecipeError, CalibrationError.
    """
    old, cache = list[OldBuild](), list[Cache]()
    for source in sources:
        path = Path(source)
        if not is_there(path):
            old.append(_build_of(source, Path()))
        elif is_cache(path) or is_table(path):
            cache.append(read_scales(path))
        else:
            old.append(_build_of(_text(path), path.parent))
    for kind, found in (("builds", old), ("calibration caches", cache)):
        if len(found) > 1:
            raise RecipeError(f"{len(found)} {kind} were given, and one recipe is one engine", remedy="Migrate each by itself")
    build = old[0] if old else OldBuild()
    if not cache and build.cache and is_there(Path(build.cache)):
        cache.append(read_scales(Path(build.cache)))
    elif not cache and build.cache:
        build = msgspec.structs.replace(build, said=(*build.said, f"the calibration cache {build.cache} is not here"))
    return build, cache[0] if cache else None


def _text(path: Path) -> str:
    try:
        data = read_regular(path, MOST)
    except OSError as error:
        remedy = "Give a command line or a builder script; name an ONNX file by --onnx"
        raise RecipeError(f"{path} cannot be read: {error.strerror}", remedy=remedy) from error
    if not data.strip():
        raise RecipeError(f"{path} is empty", remedy="Give a calibration cache, a command line or a builder script")
    if b"\0" in data:
        remedy = "Name an ONNX file by --onnx; of ONNX Runtime's tables give calibration.cache, which is text"
        raise RecipeError(f"{path} is binary: no cache of TensorRT, command line or builder script", remedy=remedy)
    return data.decode("utf-8-sig", errors="replace")


def _build_of(text: str, folder: Path) -> OldBuild:
    if is_script(text):
        return read_script(text, folder)
    if is_polygraphy(text):
        return read_polygraphy(text)
    if re.search(r"(^|\s)--[a-zA-Z]", text):
        return read_line(text)
    what = f"'{text.strip()[:60]}' is no file that is here, no calibration cache, command line or builder script"
    raise RecipeError(what, remedy="Give a path, or a line in quotes such as 'trtexec --onnx=m.onnx --int8'")
