"""Files, folders and arrays -> preprocessed float32 batches, with their labels where they have any. Pillow and numpy only."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.disk.files import read_regular
from toolkit.errors import DataError, InputError
from toolkit.images.ahead import read_ahead
from toolkit.images.classes import PACKAGED, read_classes
from toolkit.images.folder import read_folder
from toolkit.images.picture import normalized, open_picture, preprocess, restore
from toolkit.recipe import Preprocess, Recipe
from toolkit.types import Array, Float, printable

MOST_BYTES = 1 << 30  # of the file of one picture
# What NumPy raises on headers that are damaged, or meant to do harm.
DAMAGED_ARRAY = (
    OSError, ValueError, EOFError, SyntaxError, TypeError, AttributeError, MemoryError, OverflowError, RecursionError,
    LookupError, zipfile.BadZipFile, tokenize.TokenError,
)  # fmt: skip
__all__ = ["PACKAGED", "Images", "class_names", "open_data", "preprocess", "read_classes", "read_idx"]


class Images:
    """Pictures in a fixed order, read and preprocessed as they are asked for: the memory does not grow with their number.

    `labels` are int64 [count], or None where the source has none; `classes` are the names that the labels count through;
    `remarks` say in words what was left out or assumed.
    """

    def __init__(
        self,
        where: str,
        items: Sequence[Any] | Array,
        preprocess: Preprocess,
        *,
        labels: NDArray[np.int64] | None = None,
        classes: tuple[str, ...] | None = None,
        ready: bool = False,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.where, self.labels = where, labels
        self.classes = None if classes is None else tuple(map(printable, classes))  # folders' names, which may be no UTF-8
        self.remarks = tuple(map(printable, remarks))
        self._items, self._preprocess, self._ready = items, preprocess, ready

    def having(self, inside: bool) -> Images:
        """The same images for an engine that takes pixels (`inside`), or for one that takes them preprocessed."""
        return self.taken_as(msgspec.structs.replace(self._preprocess, inside=inside))

    def taken_as(self, how: Preprocess) -> Images:
        """The same images, preprocessed as `how` says. Raises DataError where they were preprocessed before, in another way."""
        if self._preprocess == how:
            return self
        if self._ready and self._preprocess.outside != how.outside:
            what = f"{self.where} holds preprocessed images, which cannot be preprocessed in another way"
            raise DataError(what, remedy="Give the pictures themselves, or engines that preprocess in the same way")
        return Images(
            self.where, self._items, how, labels=self.labels, classes=self.classes, ready=self._ready, remarks=self.remarks
        )

    @property
    def count(self) -> int:
        return len(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def batches(self, size: int) -> Iterator[Array]:
        """float32 [n, C, H, W] (or [n, H, W, C]; for preprocessing `inside` uint8 [n, H, W, C]) of n = `size`, less in the last.

        Raises DataError, which names the image.
        """
        if size < 1:
            raise InputError(f"a batch of {size} images is not possible", remedy="Use 1 or more")
        with closing(self._inputs()) as inputs:
            while batch := list(islice(inputs, size)):
                yield np.stack(batch)

    def take(self, indices: Sequence[int]) -> Images:
        """Those of these places, in this order."""
        labels = None if self.labels is None else self.labels[list(indices)]
        items = [self._items[index] for index in indices]
        return Images(
            self.where, items, self._preprocess,
            labels=labels, classes=self.classes, ready=self._ready, remarks=self.remarks,
        )  # fmt: skip

    @property
    def is_ready(self) -> bool:
        """Whether they were preprocessed before they came here, as those of a .npy are."""
        return self._ready

    def item(self, index: int) -> Any:
        """What an image is read from: a path, or pixels."""
        return self._items[index]

    def name(self, index: int) -> str:
        """How to call an image in a message: its file, or its place in the set."""
        item = self._items[index]
        return printable(str(item)) if isinstance(item, (str, Path)) else f"number {index} of {self.where}"

    def picture(self, index: int) -> Image.Image:
        """The picture as it looks before preprocessing (of a .npy: with its normalization undone)."""
        item = self._items[index]
        return (
            restore(item, self._preprocess) if self._ready else open_picture(item, self._preprocess.color, self._preprocess.exif)
        )

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """The first 8 bytes of SHA-256 over each image's bytes, uint64 [count]: an image is known by it in any set."""
        hashes = (hashlib.sha256(self._bytes(item)).digest() for item in self._items)
        return np.array([int.from_bytes(digest[:8], "little") for digest in hashes], np.uint64)

    def _bytes(self, item: Any) -> bytes:
        if not isinstance(item, (str, Path)):
            return np.ascontiguousarray(item).tobytes()
        try:
            return read_regular(Path(item), MOST_BYTES)
        except OSError as error:
            raise DataError(f"{item} cannot be read: {error.strerror}", remedy="Replace it or remove it") from error

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hex over the preprocessing and each image's bytes (a file's as stored), in order. It reads them all."""
        digest = hashlib.sha256(b"ready" if self._ready else self._preprocess.card())
        for item in self._items:
            data = self._bytes(item)
            digest.update(struct.pack("<Q", len(data)))
            digest.update(data)
        return digest.hexdigest()

    def _inputs(self) -> Generator[Array, None, None]:
        """Every image in turn. Files are decoded a few ahead of the reader, on all cores: Pillow lets go of the interpreter."""
        if isinstance(self._items, np.ndarray):
            yield from map(self._input, range(self.count))
            return
        yield from read_ahead(range(self.count), self._input)

    def _input(self, index: int) -> Array:
        if not self._ready:
            return preprocess(self._items[index], self._preprocess)
        image = np.asarray(self._items[index])
        if not np.isfinite(image).all():
            raise DataError(f"image {index} of {self.where} holds NaN or infinity", remedy="Write it again from clean images")
        return self._pixels(index, image) if self._preprocess.inside else image

    def _pixels(self, index: int, image: Float) -> Array:
        """The pixels of an image that was preprocessed before it was stored. Raises DataError where it came from none."""
        how = self._preprocess
        pixels = np.asarray(restore(image, how)).reshape(how.pixel_shape)
        step = float(how.scale / max(how.std))
        if not np.allclose(normalized(pixels, how), image, rtol=1e-5, atol=step / 16):
            what = f"image {index} of {self.where} is not a preprocessed 8-bit picture, so its pixels cannot be recovered"
            raise DataError(what, remedy="Give the pictures themselves, or leave out `preprocess.inside`")
        return pixels


def open_data(
    spec: str, preprocess: Preprocess, limit: int | None = None, *, classes: Sequence[str] | None = None, labeled: bool = True
) -> Images:
    """`packaged:NAME`, a folder with one folder a class, a flat folder of images, or a .npy of preprocessed images.

    `limit` keeps the first so many; a class folder is interleaved (the first image of each class, then the second, ...), so that
    any such share holds every class. Labels number the class folders in the order of their names, unless every folder's name is
    in `classes` (the model's own, in its order), or is the first word of one of them: then they follow that, and the folders may
    be a part of the classes. Where labels do not matter (`labeled` is False) any tree of images will do. Raises DataError.
    """
    if limit is not None and limit < 1:
        raise DataError(f"{limit} images of {spec} are too few", remedy="Ask for at least 1")
    if spec.startswith("packaged:"):
        return _packaged(spec, preprocess, limit)
    if Path(spec).is_dir():
        return _folder(Path(spec), preprocess, limit, classes, labeled)
    if spec.endswith(".npy") and (Path(spec).is_file() or not Path(spec).exists()):
        return _array(Path(spec), preprocess, limit)
    state = "is neither a folder nor a .npy file" if Path(spec).exists() else "does not exist"
    raise DataError(f"{spec} {state}", remedy="Give a folder of images, a .npy of preprocessed ones or packaged:NAME")


def class_names(recipe: Recipe) -> tuple[str, ...] | None:
    """The names in the recipe's `classes` file. Raises DataError."""
    return read_classes(recipe.reference.classes) if recipe.reference.classes else None


def read_idx(path: Path) -> NDArray[np.uint8]:
    """A gzipped IDX file of bytes, the format of MNIST -> uint8 of the shape in its header. Raises DataError."""
    try:
        raw = gzip.decompress(read_regular(path))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy="Fetch the file again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path} is no IDX file of bytes")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if body.size != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path} holds {body.size} bytes where its header says {list(shape)}", remedy="Fetch the file again")
    return body.reshape(shape)


def _packaged(spec: str, preprocess: Preprocess, limit: int | None) -> Images:
    name = spec.partition(":")[2]
    names = sorted(path.name.removesuffix("-images.idx.gz") for path in PACKAGED.glob("*-images.idx.gz"))
    if name not in names:
        raise DataError(f"no data named '{name}' is packaged", remedy=f"Packaged are: {', '.join(names)}")
    pixels = read_idx(PACKAGED / f"{name}-images.idx.gz")[:limit]
    labels = read_idx(PACKAGED / f"{name}-labels.idx.gz")[:limit].astype(np.int64)
    return Images(spec, pixels, preprocess, labels=labels, classes=read_classes(f"packaged:{name.partition('-')[0]}"))


def _array(path: Path, preprocess: Preprocess, limit: int | None) -> Images:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED_ARRAY as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"{path} cannot be read as a .npy file: {reason}", remedy="Write it with numpy.save as float32"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} holds several arrays (.npz), or none", remedy="Write one with numpy.save as float32")
    if array.dtype != np.float32 or array.shape[1:] != preprocess.input_shape:
        want = ", ".join(map(str, ("N", *preprocess.input_shape)))
        raise DataError(f"{path} holds {array.dtype} {list(array.shape)}, the recipe wants float32 [{want}]")
    if len(array) == 0:
        raise DataError(f"{path} holds no image")
    return Images(str(path), array[:limit], preprocess, ready=True)


def _folder(root: Path, preprocess: Preprocess, limit: int | None, classes: Sequence[str] | None, labeled: bool) -> Images:
    found = read_folder(root, classes, labeled)
    labels = None if found.labels is None else found.labels[:limit]
    return Images(str(root), found.paths[:limit], preprocess, labels=labels, classes=found.classes, remarks=found.remarks)
