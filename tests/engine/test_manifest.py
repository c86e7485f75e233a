"""The identity card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.disk.files import sha256
from toolkit.errors import EngineError
from toolkit.manifest import MANIFEST, Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.types import TensorSpec


def manifest(folder: Path, data: bytes = b"compiled") -> Manifest:
    (folder / "model.bin").write_bytes(data)
    return Manifest(
        name="x",
        target="cpu",
        file="model.bin",
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, 4, 4)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 2)),),
        profiles=(Profile(min=1, opt=1, max=2),),
        preprocess=Preprocess(size=(4, 4)),
        hashes={"file": sha256(folder / "model.bin")},
    )


def test_it_reads_what_it_wrote(tmp_path: Path) -> None:
    card = manifest(tmp_path).write(tmp_path)
    assert Manifest.read(tmp_path) == card
    assert card.compiled(tmp_path) == card.compiled({"model.bin": b"compiled"}) == b"compiled"
    assert card.files == {"model.bin": sha256(tmp_path / "model.bin")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.unlink(), "is not an engine"),
        (lambda p: p.write_text(p.read_text()[:-40]), "cannot be read"),
        (lambda p: p.write_text(json.dumps(json.loads(p.read_text()) | {"version": 99})), "version 99"),
        (lambda p: p.write_text(json.dumps(json.loads(p.read_text()) | {"profiles": 3})), "damaged"),
        (lambda p: p.write_text("[]"), "version None"),
    ],
)
def test_a_bad_card_is_refused(tmp_path: Path, change: object, words: str) -> None:
    manifest(tmp_path).write(tmp_path)
    change(tmp_path / MANIFEST)  # type: ignore[operator]
    with pytest.raises(EngineError, match=words):
        Manifest.read(tmp_path)


def test_every_bit_of_the_card_is_sealed(tmp_path: Path) -> None:
    """Each of its bytes in turn, in one of its bits: no other text passes for it."""
    manifest(tmp_path).write(tmp_path)
    data = (tmp_path / MANIFEST).read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(EngineError, match="manifest"):
            Manifest.decode(bytes(flipped), "manifest")


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    card = manifest(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"compilee")
    with pytest.raises(EngineError, match="not the file"):
        card.compiled(tmp_path)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(EngineError, match=r"no file 'model\.bin'"):
        card.compiled(tmp_path)


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    import msgspec

    (tmp_path / "engine").mkdir()
    card = msgspec.structs.replace(manifest(tmp_path), file="../model.bin")
    with pytest.raises(EngineError, match="a file outside itself"):
        card.compiled(tmp_path / "engine")
