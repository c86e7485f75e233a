"""Torchvision's published ImageNet checkpoints: their addresses, and a cache that is checked against the hash in each name."""

from __future__ import annotations

import os
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError

from toolkit.disk.drafts import draft_file, sweep
from toolkit.disk.files import cache_folder, sha256
from toolkit.errors import WeightsError
from toolkit.types import Progress

NO_CACHE = "Set XDG_CACHE_HOME to a folder that can be written"
BASE = "https://download.pytorch.org/models"
# Torchvision's own weight enums list them; the eight digits are the start of the file's SHA-256.
CHECKPOINTS: dict[tuple[str, str], str] = {
    ("resnet18", "IMAGENET1K_V1"): "resnet18-f37072fd.pth",
    ("resnet34", "IMAGENET1K_V1"): "resnet34-b627a593.pth",
    ("resnet50", "IMAGENET1K_V1"): "resnet50-0676ba61.pth",
    ("resnet50", "IMAGENET1K_V2"): "resnet50-11ad3fa6.pth",
    ("resnet101", "IMAGENET1K_V1"): "resnet101-63fe2227.pth",
    ("resnet101", "IMAGENET1K_V2"): "resnet101-cd907fc2.pth",
    ("resnet152", "IMAGENET1K_V1"): "resnet152-394f9c45.pth",
    ("resnet152", "IMAGENET1K_V2"): "resnet152-f82ba261.pth",
}


def is_kept(arch: str, tag: str) -> bool:
    """Whether the checkpoint lies in the cache."""
    with suppress(OSError):
        return (cache_folder() / CHECKPOINTS.get((arch, tag), "none")).is_file()
    return False


def published(arch: str, tag: str, progress: Progress | None = None) -> Path:
    """The checkpoint's file, downloaded when the cache lacks it. Raises WeightsError."""
    name = CHECKPOINTS.get((arch, tag))
    if name is None:
        tags = " or ".join(f"torchvision:{known}" for model, known in CHECKPOINTS if model == arch)
        raise WeightsError(f"torchvision has no weights '{tag}' for {arch}", remedy=f"Use {tags}")
    try:
        folder = cache_folder()
    except OSError as error:
        raise WeightsError(f"there is no place to keep {name}: {error.strerror}", remedy=NO_CACHE) from error
    return fetch(f"{BASE}/{name}", folder, progress)


def fetch(url: str, folder: Path, progress: Progress | None = None) -> Path:
    """The file at `url` (NAME-HASH.pth) in `folder`; what is there already is checked and used.

    `progress` counts bytes. Raises WeightsError, which says where to lay the file by hand, and leaves no partial file.
    """
    path = folder / url.rpartition("/")[2]
    with suppress(FileNotFoundError, NotADirectoryError):
        _check(path, path, f"Delete {path} and run again")
        return path
    by_hand = f"Fetch {url} on a machine with a network and put it at {path}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with draft_file(path) as (partial, file):
            try:
                _download(url, file, progress)
                _check(partial, path, by_hand)
                os.replace(partial, path)
            except (URLError, OSError) as error:
                raise WeightsError(f"cannot download {url}: {getattr(error, 'reason', error)}", remedy=by_hand) from error
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error}", remedy=NO_CACHE) from error
    return path


def _download(url: str, file: BinaryIO, progress: Progress | None) -> None:
    with urllib.request.urlopen(url, timeout=30) as answer:
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        while chunk := answer.read(1 << 18):
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, max(total, done))
    file.flush()


def _check(file: Path, named: Path, remedy: str) -> None:
    """Whether the content of `file` has the hash that the name of `named` ends in."""
    wanted, found = named.stem.rpartition("-")[2], sha256(file)
    if not found.startswith(wanted):
        raise WeightsError(f"{named} should have a SHA-256 that starts with {wanted}, but it is {found[:8]}", remedy=remedy)
