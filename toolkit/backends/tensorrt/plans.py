"""Plans that were built before, by the hash of all that went into them: a repeated build gives the same bytes, at once.

They lie in the cache folder and may be deleted at any time. The oldest go where together they pass LIMIT.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from toolkit.files import cache_folder, write_atomically

LIMIT = 2 << 30  # bytes


def find(key: str) -> bytes | None:
    """What `keep` was given under this key; None where it is not there, or damaged."""
    try:
        data = _file(key).read_bytes()
    except OSError:
        return None
    digest, payload = data[:32], data[32:]
    return payload if hashlib.sha256(payload).digest() == digest else None


def keep(key: str, payload: bytes) -> None:
    """Keep `payload` under `key`. A cache folder that cannot be written only means that the next build takes its time."""
    file = _file(key)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, hashlib.sha256(payload).digest() + payload)
        _trim(file.parent, file)


def _file(key: str) -> Path:
    return cache_folder() / "plans" / f"{key}.bin"


def _trim(folder: Path, newest: Path) -> None:
    files = sorted(folder.glob("*.bin"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > LIMIT and file != newest:
            file.unlink(missing_ok=True)
