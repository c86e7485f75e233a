"""A model repository on disk: versions are folders that appear whole; only models that the toolkit wrote are written again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from toolkit.disk.files import make_folder, write_atomically
from toolkit.disk.folders import alone, new_folder
from toolkit.errors import EngineError
from toolkit.handoff.tritonconfig import MARK
from toolkit.manifest import MANIFEST, Manifest

CONFIG = "config.pbtxt"
PATIENCE = 600.0  # seconds that a handoff waits for another
Fill = Callable[[Path], None]


class Repository:
    """Models by name, each with its versions by number; a version's folder holds its engine's manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block nobody else hands anything to this repository: two at once would find the same next version."""
        make_folder(self.folder)
        with alone(self.folder, PATIENCE):
            yield

    def version_of(self, model: str, seal: str, wanted: int | None) -> int:
        """The version that this engine has, or gets. Raises EngineError where `wanted` is another engine's."""
        kept = self._versions(model)
        if wanted is None:
            same = [version for version, found in kept.items() if found == seal]
            return max(same, default=max(kept, default=0) + 1)
        if wanted < 1:
            raise EngineError(f"a model's version is a number from 1 up, not {wanted}")
        if kept.get(wanted, seal) != seal:
            what = f"version {wanted} of {model} in {self.folder} is another engine"
            raise EngineError(what, remedy=f"Use another version, such as {max(kept) + 1}")
        return wanted

    def refuse_foreign(self, model: str) -> None:
        """Raise EngineError where a model of that name stands that the toolkit did not write."""
        config = self.folder / model / CONFIG
        if config.exists() and not config.read_text(errors="replace").startswith(MARK):
            what = f"{config.parent} is a model that the toolkit did not write: it is not replaced"
            raise EngineError(what, remedy="Choose another folder with -o")

    def write(self, model: str, config: str, version: int, fill: Fill, beside: Mapping[str, bytes]) -> None:
        """`fill` writes into the version's folder, which then appears at once; the configuration comes last."""
        folder = self.folder / model
        folder.mkdir(parents=True, exist_ok=True)
        with new_folder(folder / str(version)) as draft:
            fill(draft)
        for name, data in beside.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_atomically(folder / name, data)
        write_atomically(folder / CONFIG, config.encode())

    def _versions(self, model: str) -> dict[int, str]:
        """Number -> seal of the engine; empty where it is no engine of ours."""
        found = {}
        for folder in (self.folder / model).glob("[0-9]*"):
            if folder.name.isascii() and folder.name.isdecimal():
                found[int(folder.name)] = Manifest.read(folder).seal if (folder / MANIFEST).exists() else ""
        return found
