"""Draft: a first recipe for a model's file, with what the file tells, and with what had to be assumed said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.engine.layout import SUFFIX
from toolkit.errors import RecipeError, WeightsError
from toolkit.manifest import MANIFEST
from toolkit.recipe import ARCHITECTURES, Preprocess, Recipe, Reference
from toolkit.recipe.assumed import GRAY, left_open
from toolkit.recipe.modules import is_module
from toolkit.types import Target, one_line

PRECISIONS = ("fp32", "fp16", "int8", "fp8")
PLAIN = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # pixels as they are


class Draft(NamedTuple):
    """`told` is what was read off the file, a line each."""

    recipe: Recipe
    told: tuple[str, ...]


def draft(model: Any, kind: str | None = None, /, **options: Any) -> Draft:
    """A recipe for a module, an ONNX file, or weights (`arch` is read off them where it is not given); `options` as `Recipe.of`.

    `kind` is fp32, fp16, int8 or fp8; what INT8 leaves is FP16 where an NVIDIA library compiles, and FP32 on the CPU; what FP8
    leaves is FP16. Options come before what the file tells. Raises RecipeError, GraphError, WeightsError.
    """
    given = {key: value for key, value in options.items() if value is not None}
    found, told = _read(model, given)
    guessed = {key: value for key, value in found.items() if key not in given}
    values = {**guessed, **_numbers(kind, given), **given}
    table = given.get("preprocess")
    said = {*given, *found, *(table if isinstance(table, Mapping) else ())}
    return Draft(left_open(Recipe.of(model, **values), said), tuple(told))


def _numbers(kind: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    if kind is None:
        return {}
    if kind not in PRECISIONS:
        raise RecipeError(f"precision '{kind}' is not known", remedy=f"Use {', '.join(PRECISIONS)}")
    if kind == "fp8":
        return {"fp8": True, "compute": "fp16"}
    if kind != "int8":
        return {"compute": kind}
    targets = Target.parse_many(str(given.get("target", "cpu")))
    return {"int8": True, "compute": "fp16" if all(target.is_nvidia for target in targets) else "fp32"}


def _read(model: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the model tells: keys of a recipe, and lines for a person."""
    if is_module(model):
        return {}, [f"module {type(model).__name__}"]
    text = str(model)
    if (Path(text) / MANIFEST).is_file() or text.endswith(SUFFIX):
        remedy = f"Run it: toolkit run {text} IMAGE; or give the model that it was built from"
        raise RecipeError(f"{text} is an engine, which is built already", remedy=remedy)
    if text.lower().endswith(".onnx"):
        return _read_onnx(Path(text), given.get("input"))
    if text.startswith("packaged:"):
        return _read_packaged(text)
    if text.startswith(("random:", "torchvision:")):
        return {}, [text]
    return _read_weights(Path(text), given)


def _read_onnx(path: Path, name: str | None) -> tuple[dict[str, Any], list[str]]:
    from toolkit.graph.load.glance import glance
    from toolkit.graph.load.normal import normalization_of
    from toolkit.reference.normal import ordered, plain, taken

    seen = glance(path)
    told = [
        f"ONNX, opset {seen.opset}, {seen.operators} operators{f', by {seen.producer}' if seen.producer else ''}",
        *(f"input {tensor}" for tensor in seen.inputs),
        *(f"output {tensor}" for tensor in seen.outputs),
    ]
    image, found = seen.image, dict[str, Any]()
    if image is None:
        return found, told
    _, *sizes = image.shape
    last = sizes[2] in (1, 3) and sizes[0] not in (1, 3)
    channels = sizes[2] if last else sizes[0]
    height, width = (sizes[0], sizes[1]) if last else (sizes[1], sizes[2])
    if last:
        found["layout"] = "NHWC"
    if channels == 1:
        found["color"] = "L"
    if height is not None or width is not None:  # one that is open is taken as the other
        found["size"] = (height or width, width or height)
    if image.dtype in ("uint8", "int8", "int32", "int64"):
        n = 1 if channels == 1 else 3
        found |= {key: value if key == "scale" else value[:n] for key, value in PLAIN.items()}  # type: ignore[index]
    elif (normal := normalization_of(path, name)) is not None:
        how = plain(Preprocess(**GRAY) if channels == 1 else Preprocess(), normal)  # type: ignore[arg-type]
        found |= {"scale": how.scale, "mean": how.mean, "std": how.std}
        told.append(taken(normal))
        if normal.color is not None and channels != 1:
            found["color"] = normal.color
            told += [ordered(normal)] if normal.nodes else []
    elif channels != 1:
        _add_beside(path, found, told)
    return found, told


def _add_beside(path: Path, found: dict[str, Any], told: list[str]) -> None:
    """What a file beside the model says of its pictures; a size that the model itself has stays."""
    from toolkit.reference.beside import beside

    seen = beside(path)
    if seen is None:
        return
    values = dict(seen.values)
    if "size" in found and values.get("size") != found["size"]:
        values = {key: value for key, value in values.items() if key not in ("size", "resize")}
    found |= values
    told.append(f"{', '.join(values)} are those of {seen.where} beside the model")


def _read_packaged(spec: str) -> tuple[dict[str, Any], list[str]]:
    name = spec.partition(":")[2]
    found: dict[str, Any] = {"size": (28, 28), "color": "L", "mean": (0.2860,), "std": (0.3530,)}
    found["classes"] = "packaged:fashion"
    arch = next((arch for arch in ARCHITECTURES if name.endswith(arch)), None)
    return found | ({"arch": arch} if arch else {}), [f"packaged weights {name}"]


def _read_weights(path: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The architecture whose tensors the file has, its input's channels and its classes."""
    from toolkit.reference.weights import open_weights, read_weights
    from toolkit.reference.weights.shapes import guess, nearest

    if path.suffix.lower() == ".toml":
        raise RecipeError(f"{path} is a recipe, not a model", remedy=f"Build it: toolkit build {path}")
    if not path.exists():
        raise WeightsError(f"there is no file {path}", remedy="Give a recipe, an ONNX file, or weights that torch saved")
    if given.get("arch", ARCHITECTURES[0]) not in ARCHITECTURES:
        raise RecipeError(f"`arch` = {given['arch']!r:.80} is not known", remedy=f"There are {', '.join(ARCHITECTURES)}")
    weights = read_weights(path)
    asked = Reference(arch=given.get("arch", "resnet50"), weights=str(path), stem=given.get("stem"))
    known = guess(asked, weights)
    if known is None and (near := nearest(asked, weights)) is not None:
        known = near[0]  # what it lacks is named when its weights are read
    if known is None and "arch" not in given:
        open_weights(asked)  # raises: it says what they are instead
    first = weights.tensors.get("conv1.weight", weights.tensors.get("conv1.0.weight"))
    last = weights.tensors.get("fc.weight")
    told = [f"weights of {given.get('arch') or known or 'no architecture that is known here'}, {len(weights.tensors)} tensors"]
    if last is not None and last.ndim == 2:
        told.append(f"output {last.shape[0]} classes")
    if weights.labels is not None and "classes" not in given:
        told.append(weights.labels.note)
    found: dict[str, Any] = {}
    if known is not None:
        found["arch"] = known
    if first is not None and first.ndim == 4:
        told.append(f"input {first.shape[1]} channel{'s' * (first.shape[1] != 1)}")
        if first.shape[1] == 1:
            found["color"] = "L"
        else:
            _add_beside(path, found, told)
    return found, told


def commented(found: Draft, folder: Path) -> str:
    """The recipe as TOML for `folder`: what the file tells above, and in each table, commented out, what else it could hold."""
    from toolkit.recipe.write import recipe_toml

    recipe, reference = found.recipe, found.recipe.reference
    lines = [f"# A first recipe for {one_line(Path(reference.onnx or reference.weights or recipe.name).name)}. The file tells:"]
    lines += [f"#   {one_line(line)}" for line in found.told]
    lines += ["# Every key: docs/reference/recipe.md. Build it: toolkit build THIS_FILE", ""]
    head, *tables = recipe_toml(recipe, folder).rstrip().split("\n\n[")
    lines += head.splitlines()
    written = dict(table.split("]\n", 1) for table in tables)
    for name in (*written, *(name for name in _HINTS if name not in written)):
        body = written.get(name, "").splitlines()
        held = {line.partition(" = ")[0] for line in body}
        hints = [f"# {key} = {value}" for key, value in _HINTS.get(name, {}).items() if key not in held]
        lines += ["", f"[{name}]" if body else f"# [{name}]", *body, *hints]
    return "\n".join(lines) + "\n"


_HINTS = {  # what most recipes say besides, as TOML
    "preprocess": {
        "size": "[224, 224]    # height, width, as it was trained",
        "resize": "256    # the shorter side before the center crop; absent: straight to size",
        "mean": "[0.485, 0.456, 0.406]    # ImageNet's, unless the training says otherwise",
        "std": "[0.229, 0.224, 0.225]",
    },
    "precision": {"compute": '"fp16"', "int8": "true", "keep": '["layer1"]    # layers left out of INT8'},
    "calibration": {"data": '"images/train"    # some hundred images, labels not needed; INT8 needs them'},
    "build": {"target": '"cpu"', "batch": "[1, 8, 32]    # min, opt, max"},
    "accept": {
        "data": '"images/val"    # one folder a class; never seen by calibration',
        "max_top1_drop": "0.5    # percentage points, shown with one-sided 95 % confidence",
    },
}
