"""Signing: whose build an engine is. An Ed25519 signature over its manifest, which holds the hash of every other file.

So the signature covers the compiled file, the typed graph, the ranges, the verdict, the calibration set's hash and the versions:
what was judged is what runs. Keys are files of the user's own, as `openssl genpkey -algorithm ed25519` or `ssh-keygen -t ed25519`
makes them; the toolkit makes none and sends none anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from toolkit.disk.files import read_regular, write_atomically
from toolkit.errors import EngineError, MissingExtra
from toolkit.manifest import MANIFEST, SIGNATURE, UNSEALED, sealed
from toolkit.types import Frozen

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError:
    raise MissingExtra("cryptography", "sign") from None

PURPOSE = b"resnet-deploy engine, manifest, version 1\n"  # a signature made for something else is none of an engine
KEY_SIZE = 1 << 16  # bytes that the file of a key may have
_MAKE = "Make a pair: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub"


class Signature(Frozen, frozen=True):
    """`signature.json`, in hex. Whoever has no library to verify it with can still tell that it is damaged, by its seal."""

    key: str  # the public key
    signature: str
    seal: str = UNSEALED


def check_key(key: Path) -> None:
    """Raise EngineError where `sign` would, for the key's sake: before the work, and not after."""
    _read_key(key, _private, "private")


def sign(folder: Path, key: Path) -> None:
    """Lay the signature of a sealed engine into its folder. Raises EngineError, which says what is wrong with the key."""
    private = _read_key(key, _private, "private")
    signature = private.sign(PURPOSE + read_regular(folder / MANIFEST))
    public = private.public_key().public_bytes_raw()
    told = Signature(key=public.hex(), signature=signature.hex())
    write_atomically(folder / SIGNATURE, sealed(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n"))


def verify(contents: Mapping[str, bytes], trusted: Iterable[str | Path], where: str) -> str:
    """The fingerprint of the one of `trusted` (files of public keys) that signed an engine's files, by name.

    Raises EngineError: not signed, by another key, or changed since; the hashes of the files are checked when they are read.
    """
    keys = {key.public_bytes_raw(): str(path) for path in trusted for key in [_read_key(Path(path), _public, "public")]}
    if not keys:
        raise EngineError("no trusted key was given", remedy=_MAKE)
    if SIGNATURE not in contents:
        raise EngineError(f"{where} is not signed", remedy="Build it with --sign-key, or load it without `trusted`")
    try:
        told = msgspec.json.decode(contents[SIGNATURE], type=Signature)
        public, signature = bytes.fromhex(told.key), bytes.fromhex(told.signature)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the signature of {where} cannot be read: {error}", remedy="Get the engine again") from error
    if public not in keys:
        what = f"{where} is signed by {fingerprint(public)}, which is not one of the {len(keys)} trusted key(s)"
        raise EngineError(what, remedy="Ask its builder for the public key, or get the engine from a source that you trust")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, PURPOSE + contents[MANIFEST])
    except (InvalidSignature, ValueError):
        what = f"{where} is not what {fingerprint(public)} signed: it was changed since"
        raise EngineError(what, remedy="Get the engine again from its builder") from None
    return fingerprint(public)


def fingerprint(public: bytes) -> str:
    """How a key is told in a line: the start of its SHA-256."""
    return f"ed25519:{hashlib.sha256(public).hexdigest()[:16]}"


def _read_key(path: Path, parse: Callable[[bytes], Any], kind: str) -> Any:
    try:
        return parse(read_regular(path, KEY_SIZE))
    except OSError as error:
        raise EngineError(f"the {kind} key {path} cannot be read: {error.strerror}", remedy=_MAKE) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = f"{path} is not a {kind} Ed25519 key without a password: {error or type(error).__name__}"
        raise EngineError(what, remedy=_MAKE) from error


def _private(data: bytes) -> Ed25519PrivateKey:
    openssh = b"OPENSSH PRIVATE KEY" in data
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    key = load(data, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is of another algorithm")
    return key


def _public(data: bytes) -> Ed25519PublicKey:
    if data.startswith(b"ssh-"):
        key: Any = serialization.load_ssh_public_key(data)
    elif b"PRIVATE KEY" in data:
        raise ValueError("it is a private key, which nobody but its owner should hold")
    else:
        key = serialization.load_pem_public_key(data)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it is of another algorithm")
    return key
