"""Bodies of requests to `toolkit serve`, as the server has them once HTTP is read: a header's value, a newline, the body."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from tests.fuzz.mutate import changed_value, mutant
from toolkit.engine.engine import Engine
from toolkit.errors import InputError
from toolkit.manifest import Manifest
from toolkit.serve.picture import picture_in
from toolkit.serve.protocol import encode, parse
from toolkit.serve.refused import Refused
from toolkit.serve.routes import decode

JSON = 1 << 20
IMAGES = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
FORM = (
    b'--X\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n'
    b'--X\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n%s\r\n--X--\r\n'
)


def infer_requests() -> list[bytes]:
    """One whose tensor is JSON, and one whose tensor is binary and that wants classes."""
    spec = {"name": "input", "shape": [2, 3, 8, 8], "datatype": "FP32"}
    plain = {"id": "1", "inputs": [{**spec, "data": IMAGES.tolist()}], "outputs": [{"name": "logits"}]}
    head = {
        "inputs": [{**spec, "parameters": {"binary_data_size": IMAGES.nbytes}}],
        "outputs": [{"name": "logits", "parameters": {"classification": 2, "binary_data": True}}],
        "parameters": {"timeout": 1000},
    }
    text = json.dumps(head).encode()
    return [b"\n" + json.dumps(plain).encode(), str(len(text)).encode() + b"\n" + text + IMAGES.tobytes()]


def changed_request(data: bytes, seed: int) -> bytes:
    """Two of three mutants are still a request: a value of its JSON, or the header, is changed."""
    header, _, body = data.partition(b"\n")
    if seed % 3 == 0:
        return mutant(data, seed)
    length = int(header) if header else len(body)
    text = changed_value(body[:length], seed)
    header = str(len(text)).encode() if header else header
    dice = random.Random(seed)
    if dice.random() < 0.1:
        header = dice.choice((b"-1", b"0", b"9" * 20, b"1e3", b"\xff", b" 7", str(len(body) + 1).encode()))
    return header + b"\n" + text + body[length:]


def read_infer(path: Path, engine: Engine) -> None:
    header, _, body = path.read_bytes().partition(b"\n")
    _refused(lambda: _infer(body, header or None, engine.manifest))


def _infer(body: bytes, header: bytes | None, manifest: Manifest) -> None:
    wanted = parse(body, header, manifest, JSON)
    assert wanted.images.shape[1:] == (3, 8, 8)
    assert wanted.images.dtype == np.float32
    encode(wanted, wanted.images.mean((2, 3)), manifest, "tiny", "1")


def picture_requests(picture: bytes) -> list[bytes]:
    """A picture as it is, and as the one file of a form."""
    return [b"image/png\n" + picture, b"multipart/form-data; boundary=X\n" + FORM % picture]


def read_picture(path: Path, engine: Engine) -> None:
    kind, _, body = path.read_bytes().partition(b"\n")
    _refused(lambda: decode(picture_in(body, kind), engine.manifest, 1 << 20))


def _refused(work: object) -> None:
    """What the server answers with a status of HTTP is a refusal, as a ToolkitError is elsewhere."""
    try:
        work()  # type: ignore[operator]
    except Refused as refusal:
        if not 400 <= refusal.status < 500 and refusal.reason != "not-finite":  # numbers that overflow in the engine: its answer
            raise AssertionError(f"status {refusal.status} for what a client sent: {refusal}") from None
        raise InputError(str(refusal)) from None
