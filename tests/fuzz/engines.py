"""An engine as others may hand it over: whole, and with one of its files changed and everything sealed again."""

from __future__ import annotations

import ast
import io
import json
import os
import random
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from tests.fuzz.mutate import changed_value, mutant
from toolkit.cli.console import PlainConsole
from toolkit.engine import answers, layout
from toolkit.engine.bom import bill_of_materials
from toolkit.engine.engine import Engine
from toolkit.engine.judge import Proof
from toolkit.handoff.ray import to_ray
from toolkit.handoff.triton import to_triton
from toolkit.harness.accuracy import compare_accuracy
from toolkit.images.dataset import open_data
from toolkit.insight import network
from toolkit.manifest import MANIFEST, UNSEALED, Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.report.engine_page import engine_page
from toolkit.report.inspection import inspection
from toolkit.types import TensorSpec

SMALL = Preprocess(size=(8, 8))
RANGES = (Path(__file__).parents[1] / "engine/golden/version-1/ranges.json").read_bytes()


def tiny(folder: Path, operator: str = "ReduceMean") -> Path:
    """An engine for ONNX Runtime, whole and sealed: [N, 3, 8, 8] -> the mean of each channel, or another operator's."""
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in (("input", [3, 8, 8]), ("logits", [3]))]
    node = helper.make_node(operator, ["input"], ["logits"], name="mean", axes=[2, 3], keepdims=0)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    finding = {"rule": "r", "node": "mean", "what": "w", "fix": "f"}
    (folder / layout.LAYERS).write_text(json.dumps({"operators": {"ReduceMean": 1}, "findings": [finding]}))
    (folder / layout.RANGES).write_bytes(RANGES)
    Manifest(
        name="tiny",
        target="cpu",
        file="model.onnx",
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 3)),),
        profiles=(Profile(min=1, opt=1, max=4),),
        preprocess=SMALL,
        classes=("a", "b", "c"),
        hashes={"file": layout.sha256_bytes((folder / "model.onnx").read_bytes())},
        versions={"onnxruntime": "1.22.0"},
        settings={"threads": 1, "spin": False},
        recipe={"name": "tiny", "reference": {"onnx": "model.onnx"}, "preprocess": {"size": [8, 8]}},
        notes=("a note",),
    ).write(folder)
    return folder


@cache
def served() -> Engine:
    """What requests are made to, in memory."""
    with tempfile.TemporaryDirectory() as place:
        return Engine.open(tiny(Path(place, "tiny")))


def packed() -> list[bytes]:
    """Two that carry all that an engine may: a verdict on labeled images, and one on images that were held back."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        logits, truth = np.random.default_rng(0).random((2, 40, 3), np.float32)
        pictures = _pictures(Path(place))
        digests = np.concatenate([open_data(str(pictures), SMALL).digests, np.arange(38, dtype=np.uint64)])
        for held_back in (False, True):
            folder = tiny(Path(place, f"tiny-{held_back}"))
            labels = None if held_back else truth.argmax(1)
            verdict = compare_accuracy(truth, logits, labels, name="tiny")
            verdict = msgspec.structs.replace(verdict, held_back=held_back)
            (folder / layout.VERDICT).write_bytes(msgspec.json.encode(Proof(verdict=verdict, how="measured")))
            (folder / layout.ANSWERS).write_bytes(answers.encode(truth, digests))
            msgspec.structs.replace(Manifest.read(folder), seal=UNSEALED).write(folder)
            found.append(Engine.open(folder).pack(Path(place, "x.engine")).read_bytes())
    return found


def _pictures(place: Path) -> Path:
    """Two pictures, in a folder."""
    folder = place / "pictures"
    folder.mkdir(exist_ok=True)
    for level in (0, 255):
        Image.new("RGB", (9, 9), (level, 0, 255 - level)).save(folder / f"{level}.png")
    return folder


def stranger(data: bytes, seed: int) -> bytes:
    """A packed engine in which one file is changed and everything is sealed again, as whoever means harm would do."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    name = (MANIFEST, MANIFEST, layout.LAYERS, layout.RANGES, layout.VERDICT, layout.ANSWERS)[seed % 6]
    contents[name] = (_changed_member if name == layout.ANSWERS else changed_value)(contents[name], seed)
    manifest = json.loads(contents[MANIFEST])
    if isinstance(manifest, dict):
        if isinstance(manifest.get("files"), dict):
            manifest["files"] |= {n: layout.sha256_bytes(contents[n]) for n in manifest["files"] if n in contents}
        manifest["seal"] = UNSEALED
        text = msgspec.json.format(json.dumps(manifest).encode(), indent=1)
        contents[MANIFEST] = text.replace(UNSEALED.encode(), layout.sha256_bytes(text).encode())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in contents.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return buffer.getvalue()


def _changed_member(data: bytes, seed: int) -> bytes:
    """An archive of arrays in which one is changed: its values, its type, its shape or its bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    dice = random.Random(seed)
    name = dice.choice(list(members))
    array = np.load(io.BytesIO(members[name]))
    changes = (
        lambda: array.astype(dice.choice(("<f8", "<i8", "S3", "c8", "?", "M8[s]"))),
        lambda: array[: dice.randrange(len(array))],
        lambda: np.full_like(array, np.nan if array.dtype.kind == "f" else dice.choice((0, 3, 127))),
        lambda: array.reshape(-1, 1),
    )
    if dice.random() < 0.5:
        members[name] = mutant(members[name], seed)
    else:
        buffer = io.BytesIO()
        np.save(buffer, dice.choice(changes)())
        members[name] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def use(path: Path) -> None:
    engine = Engine.open(path)
    PlainConsole(file=io.StringIO()).print(inspection(engine.inspect()))
    _ = engine.answers, engine.proof, engine.remarks, engine.recipe
    bill_of_materials(engine)
    engine_page(engine.inspect(), network(engine))
    str(engine.judge(_pictures(path.parent)))
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        to_triton([engine], Path(place, "triton"))
        to_ray(engine, Path(place, "ray"))
        for script in (*Path(place).rglob("*.py"),):
            ast.parse(script.read_text())
        assert len(os.listdir(place)) == 2, "a handoff wrote outside its folder"
    with engine.runner() as runner:
        runner.classify([np.zeros((9, 9, 3), np.uint8)])
        runner(np.zeros((3, 3, 8, 8), np.float32))


