"""Ways: how apps decode and resize pictures, each as a function from a picture to the crop that the network is to see.

All resize to the same size and cut the same crop as `images.picture`; only the decoder and the filter differ. A result is rounded
to uint8, as these libraries themselves do it. What a picture in memory has no file for is decoded by nobody.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image

from toolkit.errors import DataError
from toolkit.images.picture import cropped, open_picture, scaled
from toolkit.recipe import Preprocess
from toolkit.types import Array

FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
REDUCING = 2.0  # Pillow's own `reducing_gap` in `thumbnail`


class Way(NamedTuple):
    """`needs` are modules that must be there, `pixels(picture, how)` gives uint8 [H, W, C], RGB or gray, of `how.pixel_shape`."""

    name: str
    what: str
    needs: tuple[str, ...]
    pixels: Callable[[Any, Preprocess], Array]


def ways(how: Preprocess) -> tuple[Way, ...]:
    """Every way there is, for preprocessing that interpolates as `how` does."""
    other = "full decode" if how.draft else "draft"
    words = "JPEGs decoded at their full size" if how.draft else "JPEGs decoded at a fraction of their size (`preprocess.draft`)"
    cv2, torch, onnx = ("cv2",), ("torch", "torchvision"), ("onnxruntime", "onnx", "onnx_ir")
    tensor = functools.partial(_torchvision, as_tensor=True)
    return (
        Way("opencv", "decoded and resized by OpenCV, which does not filter against aliasing", cv2, _opencv),
        Way("opencv-area", "decoded by OpenCV, resized with INTER_AREA", cv2, functools.partial(_opencv, area=True)),
        Way("torchvision-pil", "torchvision's Resize on Pillow images", torch, functools.partial(_torchvision, as_tensor=False)),
        Way("torchvision-tensor", "torchvision's Resize on uint8 tensors", torch, functools.partial(tensor, antialias=True)),
        Way("torchvision-no-antialias", "the same with antialias=False", torch, functools.partial(tensor, antialias=False)),
        Way("pillow-nearest", "Pillow with NEAREST", (), _nearest),
        Way("pillow-no-antialias", "Pillow's transform, which interpolates without filtering", (), _transform),
        Way("pillow-reducing", f"Pillow's resize with reducing_gap={REDUCING:g}, as thumbnail has it", (), _reducing),
        Way(f"pillow-{other.replace(' ', '-')}", words, (), _drafted),
        Way("onnx", "ONNX's Resize, as a graph would do it", onnx, functools.partial(_onnx, antialias=False)),
        Way("onnx-antialias", "the same with antialias=1", onnx, functools.partial(_onnx, antialias=True)),
    )


def missing(way: Way) -> str | None:
    """Why the way cannot be tried here; None where it can. What it needs is imported, once and by the caller's thread."""
    for name in way.needs:
        try:
            import_module(name)
        except ModuleNotFoundError:
            return f"the Python package '{name}' is not installed"
        except Exception as error:  # such as torchvision's, beside a torch of another build
            return f"the Python package '{name}' does not import: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return None


def _resized(picture: Any, how: Preprocess, resize: Callable[[Image.Image, int, int], Array]) -> Array:
    """The picture decoded by Pillow, resized by `resize(image, width, height)`, cropped."""
    image = open_picture(picture, how.color, how.exif)
    return _crop(resize(image, *_size(image.size, how, picture)), how)


def _size(size: tuple[int, int], how: Preprocess, picture: Any) -> tuple[int, int]:
    """Width and height before the crop."""
    if how.resize is None:
        return how.size[1], how.size[0]
    return scaled(size, how.resize, str(picture) if isinstance(picture, (str, Path)) else "a picture")


def _crop(pixels: Array, how: Preprocess) -> Array:
    """The middle, cut as `images.picture` cuts it."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width = how.size
    left, top = round((pixels.shape[1] - width) / 2), round((pixels.shape[0] - height) / 2)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width], np.uint8)


def _nearest(picture: Any, how: Preprocess) -> Array:
    return _resized(picture, how, lambda image, *size: np.asarray(image.resize(size, Image.Resampling.NEAREST)))


def _reducing(picture: Any, how: Preprocess) -> Array:
    kernel = FILTERS[how.interpolation]
    return _resized(picture, how, lambda image, *size: np.asarray(image.resize(size, kernel, reducing_gap=REDUCING)))


def _transform(picture: Any, how: Preprocess) -> Array:
    def resize(image: Image.Image, width: int, height: int) -> Array:
        box = (0, 0, image.width, image.height)
        return np.asarray(image.transform((width, height), Image.Transform.EXTENT, box, FILTERS[how.interpolation]))

    return _resized(picture, how, resize)


def _drafted(picture: Any, how: Preprocess) -> Array:
    other = msgspec.structs.replace(how, draft=not how.draft)
    return np.asarray(cropped(picture, other)).reshape(how.pixel_shape)


def _opencv(picture: Any, how: Preprocess, area: bool = False) -> Array:
    import cv2

    kind = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[how.interpolation]
    if isinstance(picture, (str, Path)):
        flags = cv2.IMREAD_GRAYSCALE if how.color == "L" else cv2.IMREAD_COLOR
        pixels = cv2.imread(str(picture), flags if how.exif else flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None:
            raise DataError(f"OpenCV cannot read {picture}", remedy="Replace it or remove it")
        if how.color != "L":
            pixels = pixels[..., ::-1]
    else:
        pixels = np.asarray(open_picture(picture, how.color, how.exif))
    size = _size((pixels.shape[1], pixels.shape[0]), how, picture)
    return _crop(cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA if area else kind), how)


def _torchvision(picture: Any, how: Preprocess, as_tensor: bool, antialias: bool = True) -> Array:
    import torchvision.transforms.v2.functional as functional
    from torchvision.transforms import InterpolationMode

    mode = InterpolationMode(how.interpolation)

    def resize(image: Image.Image, width: int, height: int) -> Array:
        if not as_tensor:
            return np.asarray(functional.resize(image, [height, width], mode))
        tensor = functional.resize(functional.pil_to_tensor(image), [height, width], mode, antialias=antialias)
        return np.asarray(tensor.permute(1, 2, 0).numpy())

    return _resized(picture, how, resize)


def _onnx(picture: Any, how: Preprocess, antialias: bool) -> Array:
    from toolkit.graph.resize import resize as by_graph

    def resize(image: Image.Image, width: int, height: int) -> Array:
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        return by_graph(pixels, width, height, how.interpolation, antialias)

    return _resized(picture, how, resize)
