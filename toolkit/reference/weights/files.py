"""A file of weights -> its content. What it is, is told by its first bytes and not by its name; nothing in it runs."""

from __future__ import annotations

import json
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from toolkit.disk.files import DAMAGED_ARCHIVE
from toolkit.errors import WeightsError
from toolkit.reference.weights.records import load_inert

AGAIN = "Save it again: torch.save(model.state_dict(), path)"
MOST_RATIO = 50  # that an archive is larger unpacked; torch.save packs nothing, and what others pack shrinks by a few percent
_FETCH = "Fetch the file again"
_ONNX = "write onnx = FILE in [reference], in place of arch and weights"
_ORIGIN = "Give the ONNX file or the weights that it was made from"
_MAGIC = (  # first bytes, what they are, what to do; {path} is filled in
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, such as Keras writes",
        "Where it is a whole model, in Python: keras.saving.load_model('{path}').export('model.onnx', format='onnx')",
    ),
    (b"ftrt", "a TensorRT engine", _ORIGIN),
    (b"ptrt", "a TensorRT engine", _ORIGIN),
    (b"version https://git-lfs", "a Git LFS pointer, and not the weights", "Run: git lfs pull"),
    (b"GGUF", "a GGUF file", "Get the weights as .safetensors or .pth"),
    (b"\x1f\x8b", "compressed by gzip", "Run: gunzip --keep {path}"),
    (b"BZh", "compressed by bzip2", "Run: bunzip2 --keep {path}"),
    (b"\xfd7zXZ", "compressed by xz", "Run: unxz --keep {path}"),
    (b"(\xb5/\xfd", "compressed by zstd", "Run: unzstd {path}"),
    (b"Rar!", "a RAR archive", "Unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it"),
    (b"\x93NUMPY", "a NumPy array", "Save the state dict: torch.save({{name: torch.from_numpy(array), ...}}, path)"),
)
_SUFFIXES = {  # formats that cannot be told by their first bytes
    ".plan": "a TensorRT engine", ".engine": "a TensorRT engine", ".trt": "a TensorRT engine", ".mlmodel": "a Core ML model",
    ".pdmodel": "a PaddlePaddle model", ".pdiparams": "a PaddlePaddle model", ".param": "an ncnn network",
    ".pb": "a TensorFlow graph",
}  # fmt: skip


class Content(NamedTuple):
    """What a file holds, its metadata (safetensors only), and the classes of objects in it that were not imported."""

    value: Any
    metadata: dict[str, str] = {}
    classes: tuple[str, ...] = ()


def read_content(path: Path) -> Content:
    """The content of a .safetensors, .pth, .pt, .bin or .tar file. Raises WeightsError, which names what it is instead."""
    if path.is_dir():
        raise WeightsError(f"the weights {path} are a folder", remedy=_in_folder(path))
    if not path.exists():
        raise WeightsError(f"the weights {path} do not exist", remedy="Correct `weights` in the recipe's [reference]")
    if not path.is_file():
        raise WeightsError(f"the weights {path} are not a regular file", remedy="Correct `weights` in the recipe's [reference]")
    try:
        with path.open("rb") as file:
            head = file.read(512)
        _refuse_other_kinds(path, head)
        if _is_safetensors(head, path):
            with safe_open(path, "pt") as tensors:
                value = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
                return Content(value, tensors.metadata() or {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Content(*_pickled(path))
    except (pickle.UnpicklingError, LookupError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} is not a checkpoint, or holds more than tensors{_detail(error)}", remedy=AGAIN) from error
    except (*DAMAGED_ARCHIVE, tarfile.TarError, ValueError, AssertionError, struct.error, SafetensorError, MemoryError,
            OverflowError) as error:  # fmt: skip
        raise WeightsError(f"{path} is {_damage(path, error)}", remedy=_FETCH) from error


def _pickled(path: Path) -> tuple[Any, dict[str, str], tuple[str, ...]]:
    value, classes = load_inert(path)
    return value, {}, classes


def _damage(path: Path, error: Exception) -> str:
    """What a reader's complaint about a file means, in words that end."""
    size, text = path.stat().st_size, str(error)
    if size == 0:
        return "empty"
    if any(sign in text for sign in ("central directory", "unexpected EOF", "incomplete", "ran out of input")):
        return f"cut short: {size:,} bytes are here, and its end is not among them"
    reason = re.split(r"(?<=\w)[.:] |\n", text)[0].strip().rstrip(".") or type(error).__name__
    return f"damaged or cut short: {reason[:200]}"


def _detail(error: Exception) -> str:
    """What torch's reader stumbled on; its advice on `weights_only` stays out."""
    text = str(error)
    start = text.find("WeightsUnpickler error: ")
    reason = text[start:].removeprefix("WeightsUnpickler error: ").splitlines()[0].strip() if start >= 0 else ""
    return f": {reason[:120].rstrip('.')}" if reason and "Unsupported operand" not in reason else ""


def _is_safetensors(head: bytes, path: Path) -> bool:
    """A length of 8 bytes, then JSON; or the suffix, so that a damaged one is told as what it should be."""
    return path.suffix == ".safetensors" or (head[8:9] == b"{" and 2 < int.from_bytes(head[:8], "little") < 100 << 20)


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Raise WeightsError where the first bytes are those of something that holds no state dict."""
    for magic, what, remedy in _MAGIC:
        if head.startswith(magic):
            raise WeightsError(f"{path} is {what}", remedy=remedy.format(path=path))
    text = head.lstrip().lower()
    if text.startswith(b"<?xml") and b"<net" in text:
        raise WeightsError(f"{path} is a network of OpenVINO", remedy=_ORIGIN)
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(f"{path} is a web page, and not the weights", remedy="Open the address in a browser: it may ask first")
    if head[4:8] == b"TFL3":
        remedy = f"Run: python -m tf2onnx.convert --tflite {path} --output model.onnx; then {_ONNX}"
        raise WeightsError(f"{path} is a TensorFlow Lite model", remedy=remedy)
    if head[4:8] == b"ORTM":
        raise WeightsError(f"{path} is in ONNX Runtime's own format", remedy="Give the ONNX file that it was made from")
    if path.suffix == ".onnx":
        raise WeightsError(f"{path} is an ONNX file", remedy=f"To use it, {_ONNX}")
    if path.suffix == ".json" or (text.startswith(b"{") and b"weight_map" in text):
        raise WeightsError(f"{path} is an index of several files", remedy=f"Merge them first: {_MERGE}")
    if (part := re.search(r"-\d{5}-of-(\d{5})$", path.stem)) is not None and int(part[1]) > 1:
        line = _MERGE if path.suffix == ".safetensors" else "torch.save({**torch.load(A), **torch.load(B)}, 'all.pth')"
        raise WeightsError(f"{path} is one of {int(part[1])} files of a model", remedy=f"Merge them first: {line}")
    if head[:2] == b"PK" and zipfile.is_zipfile(path):
        _refuse_archives(path)
    elif head[257:262] == b"ustar" or (path.suffix != ".safetensors" and tarfile.is_tarfile(path)):
        _refuse_tar(path)
    elif (format := _SUFFIXES.get(path.suffix.lower())) is not None:
        raise WeightsError(f"{path} is {format}, by its name", remedy=_ORIGIN)


_MERGE = "from safetensors.torch import load_file, save_file; save_file({**load_file(A), **load_file(B)}, 'all.safetensors')"


def _refuse_archives(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names, stored = archive.namelist(), path.stat().st_size
        size = sum(member.file_size for member in archive.infolist())
    if size > MOST_RATIO * stored:
        what = f"{path} has {stored:,} bytes, and would be {size:,} unpacked: no weights are so alike"
        raise WeightsError(what, remedy="Do not load it; take the weights from their author again")
    tails = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in tails:
        line = f"torch.save(torch.jit.load('{path}', map_location='cpu').state_dict(), '{path.with_suffix('')}-state.pth')"
        what = f"{path} is a TorchScript archive, which is a program"
        raise WeightsError(what, remedy=f'If you trust it, run: python -c "import torch; {line}"')
    if tails & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
        line = f"torch.onnx.export(torch.export.load('{path}'), dynamo=True).save('model.onnx')"
        raise WeightsError(f"{path} is a program of torch.export", remedy=f'Run: python -c "import torch; {line}"; then {_ONNX}')
    if any(name.endswith("weights.h5") for name in names):
        raise WeightsError(f"{path} is a Keras model", remedy="Export it: model.export('model.onnx', format='onnx')")
    if names and all(name.endswith(".npy") for name in names):
        line = "torch.save({k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()}, 'weights.pth')"
        raise WeightsError(f"{path} is a NumPy archive", remedy=f"Convert it: {line}")
    if not any(name.endswith("data.pkl") for name in names):
        what = f"{path} is a ZIP archive of {', '.join(names[:3]) or 'nothing'}"
        raise WeightsError(what, remedy="Unpack it and name the model in it")


def _refuse_tar(path: Path) -> None:
    with tarfile.open(path) as archive:
        names = [member.name for member, _ in zip(archive, range(64), strict=False)]
    if {"pickle", "storages", "tensors"} <= set(names):
        what = f"{path} is a checkpoint of torch 0.1, a tar file that cannot be read without running it"
        raise WeightsError(what, remedy="If you trust it, open it with the torch that wrote it, and torch.save its state dict")
    what = f"{path} is a tar archive of {', '.join(names[:3]) or 'nothing'}"
    raise WeightsError(what, remedy=f"Run: tar -xf {path}, and name the file of weights")


def _in_folder(path: Path) -> str:
    if next(path.glob("*.distcp"), None) is not None:
        return f"Merge it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth"
    if (path / "saved_model.pb").exists():
        return f"It is TensorFlow's: python -m tf2onnx.convert --saved-model {path} --output model.onnx; then {_ONNX}"
    if path.suffix == ".mlpackage":
        return f"It is a Core ML model. {_ORIGIN}"
    suffixes = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".onnx")
    found = sorted(file.name for file in path.iterdir() if file.suffix in suffixes)
    return f"Name the file in it: {', '.join(found[:3])}" if found else "Name a file of weights"


def neighbor(path: Path) -> dict[str, Any]:
    """The `config.json` that Hugging Face lays beside weights; empty where there is none that can be read."""
    file = path.parent / "config.json"
    try:
        found = json.loads(file.read_bytes()) if file.is_file() and file.stat().st_size < 1 << 20 else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
