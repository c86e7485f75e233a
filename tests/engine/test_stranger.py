"""An engine from a stranger, sealed as it should be: what its manifest may name, and what is refused before it is used."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fuzz.bounds import bounds
from tests.fuzz.readers import tiny
from toolkit.disk.files import sha256_bytes
from toolkit.engine.engine import Engine
from toolkit.engine.layout import read_manifest
from toolkit.errors import EngineError
from toolkit.manifest import MANIFEST, UNSEALED, Manifest

Card = dict[str, Any]


def resealed(folder: Path, change: Callable[[Card], object]) -> Path:
    """The engine in `folder` with another manifest, under a seal that fits it."""
    card = json.loads((folder / MANIFEST).read_bytes())
    change(card)
    text = msgspec.json.format(json.dumps(card | {"seal": UNSEALED}).encode(), indent=1)
    (folder / MANIFEST).write_bytes(text.replace(f'"seal": "{UNSEALED}"'.encode(), f'"seal": "{sha256_bytes(text)}"'.encode()))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/tmp/x",
        "a/b",
        "a\\b",
        "..",
        "",
        "-rf",
        "a b",
        'x"\nimport os',
        "\x1b[2J",
        "<b>",
        "a\0b",
        "{file}",
        "\u202eab",
        "x" * 201,
    ],
)
def test_a_name_is_one_that_a_folder_and_a_script_can_bear(tmp_path: Path, name: str) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card.update(name=name))
    with pytest.raises(EngineError, match="a name is letters, digits, dots, dashes and underscores"):
        Engine.open(folder)


def test_the_longest_name_that_is_taken(tmp_path: Path) -> None:
    name = "x" * 200
    assert Engine.open(resealed(tiny(tmp_path / "engine"), lambda card: card.update(name=name))).name == name


@pytest.mark.parametrize("name", ["a\0b", "", "..", "../x", "/dev/zero"])
def test_files_lie_in_the_engines_own_folder(tmp_path: Path, name: str) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["files"].update({name: "0" * 64}))
    with pytest.raises(EngineError, match="names a file outside itself"):
        Engine.open(folder)


@pytest.mark.parametrize("inputs", [0, 2])
def test_an_engine_has_one_input(tmp_path: Path, inputs: int) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card.update(inputs=card["inputs"] * inputs))
    with pytest.raises(EngineError, match="an engine has one input"):
        Engine.open(folder)


@pytest.mark.parametrize("threads", ["x", None, 0, -1, 1.5, 10**9])
def test_settings_are_checked_before_anything_is_made_of_them(tmp_path: Path, threads: object) -> None:
    """A handoff writes them, and Ray books cores by them, without a runner."""
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["settings"].update(threads=threads))
    with pytest.raises(EngineError, match=r"the settings of tiny: `threads` = "):
        Engine.open(folder)


@pytest.mark.parametrize("change", [{"seal": "../../x"}, {"files": {"model.onnx": "0" * 64}}])
def test_the_first_format_had_no_seal(change: Card) -> None:
    card = json.loads((Path(__file__).parent / "golden/version-1/manifest.json").read_bytes())
    with pytest.raises(EngineError, match="format version 1 has neither a seal"):
        Manifest.decode(json.dumps(card | change).encode(), "x")


@pytest.mark.parametrize("read", [Manifest.read, Engine.open])
def test_a_manifest_that_is_a_pipe_or_larger_than_any_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """As a server looks at it again and again: it must neither wait nor read without end."""
    folder = tmp_path / "engine"
    folder.mkdir()
    os.mkfifo(folder / MANIFEST)
    with pytest.raises(EngineError, match="not a regular file"):
        read(folder)
    (folder / MANIFEST).unlink()
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)  # of holes
    with pytest.raises(EngineError, match="larger than"):
        read(folder)


def test_a_packed_engine_of_many_members_is_refused_at_once(tmp_path: Path) -> None:
    """To compare each name with every other took a minute for a file of 2 MB."""
    with zipfile.ZipFile(tmp_path / "x.engine", "w") as archive:
        for index in range(30_000):
            archive.writestr(zipfile.ZipInfo(str(index)), b"")
    with bounds(), pytest.raises(EngineError, match=r"it has no manifest\.json"):
        Engine.open(tmp_path / "x.engine")


def test_a_manifest_that_grows_when_it_is_read_is_refused_wherever_it_is_read(tmp_path: Path) -> None:
    """A server that watches a packed engine reads the manifest alone, again and again: a gigabyte of a file of one megabyte."""
    with zipfile.ZipFile(tmp_path / "x.engine", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b" " * (1 << 20))
    for reading in (Engine.open, read_manifest):
        with pytest.raises(EngineError, match=r"holds 'manifest\.json' compressed"):
            reading(tmp_path / "x.engine")
