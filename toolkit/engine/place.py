"""Place: what a build may replace. An engine makes way for the next one; a person's files do not."""

from __future__ import annotations

import os
from pathlib import Path

from toolkit.disk.files import decode_json, read_regular
from toolkit.disk.folders import NEXT, refuse_foreign
from toolkit.engine import layout
from toolkit.errors import EngineError
from toolkit.manifest import MANIFEST, SIGNATURE

# All that any version of the toolkit has laid into an engine's folder, and what file browsers leave anywhere.
KNOWN = {
    *(MANIFEST, SIGNATURE, layout.GRAPH, layout.RANGES, layout.LAYERS, layout.ANSWERS, layout.VERDICT, NEXT),
    *("model.onnx", "engine.plan", "weights.onnx", ".DS_Store", "Thumbs.db", "desktop.ini"),
}


def refuse_other(path: Path) -> None:
    """Raise EngineError where `path` is there and is no engine, or an engine with something beside it.

    A damaged engine is one as well: building it again is how it is mended.
    """
    refuse_foreign(path, MANIFEST)
    if not path.is_dir():
        return
    names = {name for name in os.listdir(path) if not name.endswith(".toolkit-draft")}
    files: object = {}
    try:
        card = decode_json(read_regular(path / MANIFEST, 1 << 26)) if MANIFEST in names else {"target": "", "file": ""}
        if not (isinstance(card, dict) and {"target", "file"} <= card.keys()):
            what = f"{path} holds a {MANIFEST} of another program: it is not replaced"
            raise EngineError(what, remedy="Move it away, or choose another folder with -o")
        files = card.get("files")
    except (OSError, ValueError):
        pass
    strange = sorted(names - KNOWN - set(files if isinstance(files, dict) else ()))
    if strange:
        what = f"{path} holds {strange[0]}, which is no part of an engine: it is not replaced"
        raise EngineError(what, remedy="Move that away, or choose another folder with -o")
