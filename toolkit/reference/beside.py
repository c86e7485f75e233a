"""Beside: what files beside a model say of its pictures: transformers' `preprocessor_config.json`, timm's `config.json`.

transformers: `size` and `crop_size` are a number, `shortest_edge` or `height` and `width`; `crop_pct` is the share of the shorter
side that the crop keeps, below 384 pixels. timm: `crop_pct` always, of `input_size`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.disk.files import decode_json, read_regular

MOST = 1 << 20  # bytes
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
TRANSFORMERS, TIMM = "preprocessor_config.json", "config.json"
WHOLE_FROM = 384  # pixels: from here on transformers' crop_pct is not used


class Beside(NamedTuple):
    """`values` are keys of [preprocess], of those that the file tells."""

    where: str  # the file's name
    values: dict[str, Any]


def beside(model: Path) -> Beside | None:
    """Of the model's folder, or of the one above where that is called `onnx`. None where nothing there tells `mean` and `std`."""
    for folder in _folders(model):
        for name, reading in ((TRANSFORMERS, _transformers), (TIMM, _timm)):
            try:
                held = decode_json(read_regular(folder / name, MOST))
                values = reading(held) if isinstance(held, dict) else None
            except (OSError, ValueError, TypeError, LookupError, ArithmeticError):  # not there, or another thing of that name
                continue
            if values is not None:
                return Beside(name, values)
    return None


def names_beside(model: Path) -> dict[str, str]:
    """Texts that may name the classes, by their key: `id2label` of transformers, `label_names` of timm."""
    for folder in _folders(model):
        try:
            held = decode_json(read_regular(folder / TIMM, MOST))
        except (OSError, ValueError):
            continue
        return {key: repr(held[key]) for key in ("id2label", "label_names") if key in held} if isinstance(held, dict) else {}
    return {}


def _folders(model: Path) -> tuple[Path, ...]:
    return (model.parent, model.parent.parent) if model.parent.name == "onnx" else (model.parent,)


def _transformers(held: Mapping[str, Any]) -> dict[str, Any] | None:
    if "image_mean" not in held and "do_normalize" not in held:
        return None
    if held.get("rescale_offset") or held.get("include_top"):  # a second shift, which [preprocess] has no key for
        return None
    plain = held.get("do_normalize") is False
    values = _numbers([0.0] * 3 if plain else held["image_mean"], [1.0] * 3 if plain else held["image_std"])
    values["scale"] = 1.0 if held.get("do_rescale") is False else float(held.get("rescale_factor", 1 / 255))
    values["color"] = "BGR" if held.get("do_flip_channel_order") else "RGB"
    if held.get("resample") in RESAMPLING:
        values["interpolation"] = RESAMPLING[held["resample"]]
    return values | _crop(held)


def _crop(held: Mapping[str, Any]) -> dict[str, Any]:
    size, crop = (held.get(key) for key in ("size", "crop_size"))
    shorter = size.get("shortest_edge") if isinstance(size, dict) else size
    if held.get("do_resize") is False or size is None:
        return {}
    if crop is not None and held.get("do_center_crop", True):
        inner = (int(crop["height"]), int(crop["width"])) if isinstance(crop, dict) else (int(crop), int(crop))
        return {"size": inner} | ({"resize": int(shorter)} if isinstance(shorter, int) and shorter > max(inner) else {})
    if isinstance(shorter, int):
        share = float(held.get("crop_pct") or 1.0) if shorter < WHOLE_FROM else 1.0
        return {"size": (shorter, shorter)} | ({"resize": int(shorter / share)} if share < 1 else {})
    return {"size": (int(size["height"]), int(size["width"]))}


def _timm(held: Mapping[str, Any]) -> dict[str, Any] | None:
    inner = held.get("pretrained_cfg")
    told: Mapping[str, Any] = inner if isinstance(inner, dict) else held
    if "mean" not in told or "std" not in told:
        return None
    values = _numbers(told["mean"], told["std"]) | {"scale": 1 / 255, "color": "RGB"}
    if told.get("interpolation") in RESAMPLING.values():
        values["interpolation"] = told["interpolation"]
    _, height, width = told.get("input_size", (3, None, None))
    if isinstance(height, int) and isinstance(width, int):
        values["size"] = (height, width)
        share = float(told.get("crop_pct") or 1.0)
        if share < 1 and height == width:
            values["resize"] = math.floor(height / share)
    return values


def _numbers(mean: Any, std: Any) -> dict[str, Any]:
    found = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
    if any(len(values) != 3 for values in found.values()):
        raise ValueError("not of three channels")
    return found
