"""Upgrade: an engine of an older format, written again in today's. What it computes stays bit for bit the same."""

from __future__ import annotations

from pathlib import Path

import msgspec

from toolkit.disk.files import sha256_bytes, write_atomically
from toolkit.disk.folders import new_folder
from toolkit.engine import layout
from toolkit.engine.place import refuse_other
from toolkit.errors import EngineError
from toolkit.manifest import MANIFEST, SIGNATURE, VERSION, Manifest


def upgrade(folder: Path) -> Manifest | None:
    """Put the engine in `folder` into today's format; None where it is of that already. Raises EngineError.

    Version 1 sealed the compiled file alone, and knew the hashes of its graph and ranges: those are checked, and all is sealed as
    it lies there. What version 1 did not keep (the reference's answers, the build's verdict) stays unknown.
    """
    if folder.is_file():
        layout.read_manifest(folder)
        raise EngineError(
            f"{folder} is a packed engine, which always has the current format", remedy="Name the folder of an engine"
        )
    manifest, contents = layout.read(folder)
    old = manifest.version
    if old == VERSION:
        return None
    for name, key in ((layout.GRAPH, "onnx"), (layout.RANGES, "ranges")):
        if name in contents and key in manifest.hashes and sha256_bytes(contents[name]) != manifest.hashes[key]:
            what = f"{name} in {folder} is not the file that its manifest describes"
            raise EngineError(what, remedy="Copy it again or build it again")
    note = f"upgraded from format version {old}"
    with new_folder(folder, refuse_other) as draft:
        for name, data in contents.items():
            if name not in (MANIFEST, SIGNATURE):
                write_atomically(draft / name, data)
        return msgspec.structs.replace(manifest, version=VERSION, notes=(*manifest.notes, note)).write(draft)
