"""Every reader of files that may come from outside: a whole file to begin with, and what the toolkit does with one."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.fuzz import engines, foreign, requests
from tests.fuzz.mutate import changed_value, mutant
from toolkit.calibration.ranges import Ranges
from toolkit.cli.console import PlainConsole
from toolkit.draft import commented, draft
from toolkit.errors import EngineError
from toolkit.harness.compare import compare
from toolkit.harness.results import Results
from toolkit.harness.share import shared
from toolkit.images.dataset import open_data, read_classes, read_idx
from toolkit.images.picture import preprocess
from toolkit.manifest import Manifest
from toolkit.migrate.cache import read_cache
from toolkit.migrate.migrate import migrate
from toolkit.migrate.polygraphy import read_polygraphy
from toolkit.migrate.script import read_script
from toolkit.migrate.trtexec import read_line
from toolkit.recipe import Preprocess, Recipe
from toolkit.reference.weights.load import read_weights
from toolkit.report.compare_page import compare_page
from toolkit.report.gallery import galleries
from toolkit.report.junit import junit
from toolkit.report.page import html
from toolkit.report.table import markdown, table
from toolkit.report.told import told

ROOT = Path(__file__).parents[2]
SMALL = Preprocess(size=(8, 8))


class Reader(NamedTuple):
    """`whole` gives files that can be read; `read` takes a path; `change` makes a mutant of a file from a seed."""

    suffix: str
    whole: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    change: Callable[[bytes, int], bytes] = mutant


def _recipes() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "engines").glob("*.toml"))]


def _ranges() -> list[bytes]:
    return [(ROOT / "tests/engine/golden/version-1/ranges.json").read_bytes()]


def _either(data: bytes, seed: int) -> bytes:
    """JSON: half of the mutants are still JSON."""
    return changed_value(data, seed) if seed % 2 else mutant(data, seed)


def _tell_results(path: Path) -> None:
    results = Results.read(path)
    PlainConsole(file=io.StringIO()).print(table(results))
    html(results, galleries(results, lambda data: None))
    told(results)
    shared(results)
    comparison = compare(results, results)
    compare_page(results, results, comparison)
    markdown(results)
    junit(results)


def _pictures() -> list[bytes]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8))
    found = []
    for kind in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def _arrays() -> list[bytes]:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 3, 8, 8), np.float32))
    return [buffer.getvalue()]


def _see_array(path: Path) -> None:
    for batch in open_data(str(path), SMALL).batches(2):
        assert batch.dtype == np.float32


def _idx() -> list[bytes]:
    import gzip

    return [gzip.compress(b"\0\0\x08\2" + (3).to_bytes(4, "big") * 2 + bytes(9), mtime=0)]


def _safetensors() -> list[bytes]:
    from safetensors.numpy import save

    tensors = {"layer1.0.conv1.weight": np.ones((8, 8, 3, 3), np.float32), "fc.weight": np.ones((4, 8), np.float32)}
    tensors["fc.bias"] = np.ones(4, np.float32)
    return [save(tensors, {"arch": "resnet18", "width": "1"})]


def _pickles() -> list[bytes]:
    import torch

    state = {"layer1.0.conv1.weight": torch.ones(8, 8, 3, 3), "fc.weight": torch.ones(4, 8)}
    found = []
    for new in (True, False):  # a zip, or pickles one after the other, as PyTorch before 1.6 wrote
        buffer = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, buffer, _use_new_zipfile_serialization=new)
        found.append(buffer.getvalue())
    return found


def _keys() -> list[bytes]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    kinds = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.OpenSSH, PublicFormat.OpenSSH)
    return [key.public_bytes(*kind) for kind in kinds]


def _read_key_file(path: Path) -> None:
    """An engine that nobody signed is refused only after the keys are read."""
    from toolkit.engine.signing import verify

    with suppress(EngineError):
        verify({}, [path], "x")


def _draft(path: Path) -> None:
    """What `toolkit init` writes is a recipe, and the very one that it drafted."""
    drafted = draft(path)
    written = Recipe.parse(commented(drafted, path.parent)).resolve(path.parent)
    assert written.to_dict() == drafted.recipe.to_dict()


def _migrate(path: Path) -> None:
    migrate(["trtexec --fp16"], path.parent / "migrated.toml", onnx=path)
    Recipe.load(path.parent / "migrated.toml")


_CACHE = b"TRT-8601-EntropyCalibration2\ninput: 3c010a14\n(Unnamed Layer* 0) [Convolution]_output: 3d8b4396\n"
_LINE = b"trtexec --onnx=resnet.onnx --int8 --fp16 --calib=a.cache --minShapes=input:1x3x224x224 --optShapes=input:8x3x224x224 "
_LINE += b"--maxShapes=input:32x3x224x224 --memPoolSize=workspace:4096MiB --layerPrecisions='*:fp16,fc:fp32' "
_LINE += b"--builderOptimizationLevel=4"
_CONVERT = b"polygraphy convert net.onnx -o net.engine --int8 --calibration-cache a.cache --trt-min-shapes 'X:[1,3,28,28]' "
_CONVERT += b"--trt-opt-shapes 'X:[4,3,28,28]' --trt-max-shapes 'X:[8,3,28,28]' --layer-precisions fc:float32 --pool-limit "
_CONVERT += b"workspace:2G"
_SCRIPT = b"""
config = builder.create_builder_config()
config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2 * (1 << 30))
config.set_flag(trt.BuilderFlag.FP16)
for layer in network:
    if layer.name in ["fc", "conv1"]:
        layer.precision = trt.float32
profile.set_shape("x", (1, 3, 8, 8), [4] + list(shape), (8, 3, 8, 8))
"""
READERS = {
    "recipe": Reader(".toml", _recipes, Recipe.load),
    "ranges": Reader(".json", _ranges, Ranges.read, _either),
    "manifest": Reader(".json", lambda: [(ROOT / "tests/engine/golden/version-1/manifest.json").read_bytes()],
                       lambda path: Manifest.decode(path.read_bytes(), str(path)), _either),
    "packed engine": Reader(".engine", engines.packed, engines.use),
    "a stranger's engine": Reader(".engine", engines.packed, engines.use, engines.stranger),
    "picture": Reader(".png", _pictures, lambda path: preprocess(path, SMALL)),
    "array": Reader(".npy", _arrays, _see_array),
    "IDX file": Reader(".gz", _idx, read_idx),
    "class names": Reader(".txt", lambda: [b"cat\ndog\n"], lambda path: read_classes(str(path))),
    "safetensors": Reader(".safetensors", _safetensors, read_weights),
    "pickled weights": Reader(".pth", _pickles, read_weights),
    "ONNX file": Reader(".onnx", foreign.models, foreign.open_model, foreign.changed_model),
    "first recipe": Reader(".onnx", foreign.models, _draft, foreign.changed_model),
    "migrated model": Reader(".onnx", foreign.models, _migrate, foreign.changed_model),
    "image folder": Reader(".txt", foreign.folders, foreign.read_images, foreign.changed_folder),
    "TensorRT's cache": Reader(".cache", lambda: [_CACHE], read_cache),
    "trtexec line": Reader(".txt", lambda: [_LINE], lambda path: read_line(path.read_text(errors="replace"))),
    "Polygraphy line": Reader(".txt", lambda: [_CONVERT], lambda path: read_polygraphy(path.read_text(errors="replace"))),
    "builder script": Reader(".py", lambda: [_SCRIPT], lambda path: read_script(path.read_text(errors="replace"), path.parent)),
    "infer request": Reader(
        ".bin", requests.infer_requests, lambda path: requests.read_infer(path, engines.served()), requests.changed_request
    ),
    "picture request": Reader(
        ".bin", lambda: requests.picture_requests(_pictures()[3]), lambda path: requests.read_picture(path, engines.served())
    ),
    "public key": Reader(".pub", _keys, _read_key_file),
}  # fmt: skip


def with_results(whole: bytes) -> dict[str, Reader]:
    """All readers; a file of results is made by a bench, and comes from outside."""
    return {**READERS, "results": Reader(".json", lambda: [whole], _tell_results, _either)}
