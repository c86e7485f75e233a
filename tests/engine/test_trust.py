"""Whose engine it is: signatures, what a build may replace, older formats, and the bill of materials."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

import toolkit
from tests.fuzz.engines import tiny
from toolkit.engine import layout
from toolkit.engine.bom import bill_of_materials
from toolkit.engine.engine import Engine
from toolkit.engine.place import refuse_other
from toolkit.engine.signing import sign
from toolkit.engine.upgrade import upgrade
from toolkit.errors import EngineError
from toolkit.manifest import MANIFEST, SIGNATURE, Manifest

GOLDEN = Path(__file__).parent / "golden"


class Pair:
    """A key in both forms, as files."""

    def __init__(self, folder: Path, name: str, *, ssh: bool = False) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

        key = Ed25519PrivateKey.generate()
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub"
        form = PrivateFormat.OpenSSH if ssh else PrivateFormat.PKCS8
        self.private.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
        ours = (Encoding.OpenSSH, PublicFormat.OpenSSH) if ssh else (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public.write_bytes(key.public_key().public_bytes(*ours))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Pair, Pair]:
    return Pair(tmp_path, "ours"), Pair(tmp_path, "theirs", ssh=True)


@pytest.fixture
def engine(tmp_path: Path, keys: tuple[Pair, Pair]) -> Path:
    folder = tiny(tmp_path / "engine")
    sign(folder, keys[0].private)
    return folder


def test_a_signed_engine_is_loaded_by_whoever_trusts_its_key(engine: Path, keys: tuple[Pair, Pair], tmp_path: Path) -> None:
    ours, theirs = keys
    packed = Engine.open(engine).pack(tmp_path / "x.engine")
    for path in (engine, packed):
        with toolkit.load(path, trusted=[theirs.public, ours.public]) as runner:
            assert runner(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 3)
        with pytest.raises(EngineError, match=r"signed by ed25519:\w{16}, which is not one of the 1 trusted"):
            toolkit.load(path, trusted=[theirs.public])
        toolkit.load(path).close()


def test_a_key_of_ssh_keygen_signs_too(engine: Path, keys: tuple[Pair, Pair]) -> None:
    sign(engine, keys[1].private)
    Engine.open(engine, trusted=[keys[1].public])
    with pytest.raises(EngineError, match="not one of the 1 trusted"):
        Engine.open(engine, trusted=[keys[0].public])


def test_what_was_changed_and_sealed_again_is_told(engine: Path, keys: tuple[Pair, Pair]) -> None:
    """A stranger may seal whatever he likes; he cannot sign it."""
    card = Manifest.read(engine)
    changed = {
        "preprocess": msgspec.structs.replace(card.preprocess, mean=(0.0, 0.0, 0.0)),
        "notes": ("accepted",),
        "versions": {"onnxruntime": "1.0"},
        "hashes": {**card.hashes, "calibration": "0" * 64},
    }
    whole = (engine / MANIFEST).read_bytes()
    for key, value in changed.items():
        msgspec.structs.replace(card, **{key: value}).write(engine)
        with pytest.raises(EngineError, match="is not what ed25519"):
            Engine.open(engine, trusted=[keys[0].public])
    (engine / MANIFEST).write_bytes(whole)
    Engine.open(engine, trusted=[keys[0].public])


@pytest.mark.parametrize("name", ["model.onnx", layout.LAYERS, layout.RANGES, MANIFEST, SIGNATURE])
def test_a_bit_flipped_in_any_file_is_told_by_name(engine: Path, name: str) -> None:
    """Also by who trusts no key, and has no library to verify a signature with."""
    data = bytearray((engine / name).read_bytes())
    for at in range(0, len(data), max(1, len(data) // 40)):
        data[at] ^= 4
        (engine / name).write_bytes(data)
        with pytest.raises(EngineError, match=re.escape(name)):
            Engine.open(engine)
        data[at] ^= 4


def test_a_signature_that_cannot_be_read_is_told(engine: Path) -> None:
    """An engine need not be signed; one that seems to be is not taken for one that is not."""
    (engine / SIGNATURE).unlink()
    Engine.open(engine)
    os.mkfifo(engine / SIGNATURE)
    with pytest.raises(EngineError, match=r"signature\.json cannot be read: not a regular file"):
        Engine.open(engine)


def test_a_stripped_or_a_swapped_signature_is_told(engine: Path, keys: tuple[Pair, Pair], tmp_path: Path) -> None:
    other = tiny(tmp_path / "other")
    msgspec.structs.replace(Manifest.read(other), name="other").write(other)
    sign(other, keys[0].private)
    shutil.copy(other / SIGNATURE, engine / SIGNATURE)
    with pytest.raises(EngineError, match="it was changed since"):
        Engine.open(engine, trusted=[keys[0].public])
    (engine / SIGNATURE).unlink()
    with pytest.raises(EngineError, match="is not signed"):
        Engine.open(engine, trusted=[keys[0].public])


@pytest.mark.parametrize("kind", ["none", "missing", "private", "curve", "noise", "fifo"])
def test_a_key_that_is_none_is_refused(engine: Path, keys: tuple[Pair, Pair], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    if kind == "private":
        path.write_bytes(keys[0].private.read_bytes())
    elif kind == "curve":
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = generate_private_key(SECP256R1()).public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    elif kind == "noise":
        path.write_bytes(b"-----BEGIN PUBLIC KEY-----\nnoise\n-----END PUBLIC KEY-----\n")
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(EngineError, match=r"key|Make a pair"):
        Engine.open(engine, trusted=[] if kind == "none" else [path])


def test_a_build_replaces_engines_only(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "engine")
    refuse_other(folder)
    (folder / MANIFEST).write_bytes(b"{ damaged")
    refuse_other(folder)  # building it again is how it is mended
    (folder / "thesis.tex").write_text("years")
    with pytest.raises(EngineError, match=r"thesis\.tex"):
        refuse_other(folder)
    app = tmp_path / "app"
    app.mkdir()
    (app / MANIFEST).write_text('{"name": "a web page", "icons": []}')
    with pytest.raises(EngineError, match="another program"):
        refuse_other(app)


def test_an_engine_that_a_killed_swap_moved_aside_is_found(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "engine")
    os.rename(folder, tmp_path / ".engine.abcdefgh.old")
    toolkit.load(folder).close()
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_an_older_engine_is_brought_to_todays_format(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(GOLDEN / "version-1", folder)
    batch, logits = np.load(GOLDEN / "version-1-batch.npy"), np.load(GOLDEN / "version-1-logits.npy")
    with toolkit.load(folder, threads=1) as runner:
        before = runner(batch)
    with pytest.raises(EngineError, match=f"toolkit upgrade {folder}"):
        Engine.open(folder).pack(tmp_path / "x.engine")
    with pytest.raises(EngineError, match="not a packed engine"):
        upgrade(GOLDEN / "version-1-batch.npy")
    manifest = upgrade(folder)
    assert manifest is not None
    assert set(manifest.files) == {"model.onnx", "ranges.json"}
    with toolkit.load(folder, threads=1) as runner:
        np.testing.assert_array_equal(runner(batch), before)
        assert before.shape == logits.shape
    assert upgrade(folder) is None
    Engine.open(folder).pack(tmp_path / "x.engine")
    assert zipfile.is_zipfile(tmp_path / "x.engine")
    with pytest.raises(EngineError, match="packed"):
        upgrade(tmp_path / "x.engine")


def test_a_damaged_older_engine_is_not_sealed(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(GOLDEN / "version-1", folder)
    text = (folder / layout.RANGES).read_text()
    (folder / layout.RANGES).write_text(text.replace("0", "1", 1))
    with pytest.raises(EngineError, match=r"ranges\.json"):
        upgrade(folder)


def test_the_bill_of_materials_names_every_file_and_library(engine: Path) -> None:
    found = Engine.open(engine)
    bill = json.loads(bill_of_materials(found))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    model = bill["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    hashes = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert hashes == {name: layout.sha256_bytes(data) for name, data in found.contents.items()}
    assert [part["purl"] for part in bill["components"]] == ["pkg:pypi/onnxruntime@1.22.0"]
