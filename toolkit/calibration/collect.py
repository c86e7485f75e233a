"""Collect: one pass of images through the graph fills a Histogram for each watched tensor.

Images run one at a time, however they arrive: what a kernel gives for an image can depend, in its last bit, on how many others
share its batch, and on a CPU a larger batch runs no faster. So neither the batch size nor the order of the images shows in the
ranges. Memory: the activations of one image and 480 KiB a tensor, for any number of images.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from toolkit import cpu
from toolkit.calibration.fingerprint import Fingerprint
from toolkit.calibration.histogram import Histogram
from toolkit.calibration.ranges import Origin, Ranges, TensorRange
from toolkit.calibration.watch import Watch
from toolkit.errors import CalibrationError
from toolkit.manifest import sha256_bytes, write_atomically
from toolkit.types import Array, Float, Progress

if TYPE_CHECKING:
    import onnx_ir as ir

SAVE_EVERY = 20.0  # seconds
_Histograms = dict[str, Histogram]


def origin_of(graph: ir.Model, tensors: Sequence[str], images: str = "", preprocess: str = "") -> Origin:
    """What a collection over this graph is keyed by; `images` and `preprocess` are SHA-256 in hex."""
    print_ = Fingerprint.of(graph)
    names = sha256_bytes("\n".join(sorted(tensors)).encode())
    return Origin(layers=print_.layers, weights=print_.weights, images=images, preprocess=preprocess, tensors=names)


def collect(
    graph: ir.Model,
    images: Iterable[Float],
    tensors: Sequence[str],
    *,
    origin: Origin | None = None,
    count: int | None = None,
    checkpoint: Path | None = None,
    threads: int | None = None,
    name_of: Callable[[int], str] | None = None,
    progress: Progress | None = None,
) -> Ranges:
    """Ranges of `tensors` over all `images`, which are batches [n, *input shape] float32 of any n.

    `count` is how many images there are in all, for `progress`; `name_of(i)` names image i in an error. With `checkpoint`, the
    state is kept there every 20 seconds and when the work is cut short (Ctrl-C too); called again with the same arguments,
    collection goes on from it, and the ranges are the same as if nothing had happened. The caller removes the file.

    Raises CalibrationError: no images, a NaN or an infinity in a tensor (named with the image), a checkpoint of other work.
    """
    origin, watch = origin or origin_of(graph, tensors), Watch(graph, tensors, threads or cpu.cores())
    keeper, saved = Keeper(tensors, watch.threads), time.monotonic()
    if checkpoint is not None and checkpoint.exists():
        keeper.load(checkpoint, origin)
    try:
        for index in _fill(keeper, watch, images, name_of):
            if progress is not None:
                progress(index + 1, max(count or 0, index + 1))
            if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY:
                keeper.save(checkpoint, origin)
                saved = time.monotonic()
    except BaseException:
        keeper.close()
        if checkpoint is not None and not keeper.broken:
            keeper.save(checkpoint, origin)
        raise
    keeper.close()
    if not keeper.images:
        raise CalibrationError("there is no image to calibrate with", remedy="Check `calibration.data` and `calibration.images`")
    return Ranges(origin=origin, images=keeper.images, tensors={n: TensorRange.of(h) for n, h in keeper.histograms.items()})


def _fill(keeper: Keeper, watch: Watch, images: Iterable[Float], name_of: Callable[[int], str] | None) -> Iterator[int]:
    """Run what the keeper has not seen yet, one image at a time; yields the number of each when it is counted."""
    done = keeper.images
    singly = (batch[i : i + 1] for batch in images for i in range(len(batch)))
    for index, image in enumerate(singly):
        if index < done:
            continue
        keeper.add(watch.run(np.ascontiguousarray(image, np.float32))).result()
        if keeper.broken:
            where = f"image {index}" + (f" ({name_of(index)})" if name_of else "")
            remedy = "Look at that image, then at the weights of the layer: the FP32 graph itself fails on it"
            raise CalibrationError(f"tensor '{keeper.broken}' holds a NaN or an infinity for {where}", remedy=remedy)
        yield index


class Keeper:
    """The histograms, filled an image at a time by threads of their own, so that an interrupt never leaves half an image."""

    def __init__(self, tensors: Sequence[str], threads: int) -> None:
        self.histograms: _Histograms = {name: Histogram() for name in tensors}
        self.images = 0
        self.broken: str | None = None  # the first tensor, in the order of the graph, with a value that is not finite
        self._threads = threads
        self._keeper = ThreadPoolExecutor(1, "calibration")
        self._workers = ThreadPoolExecutor(threads, "histogram")

    def add(self, activations: dict[str, Array]) -> Future[None]:
        """Count one image's activations."""
        return self._keeper.submit(self._add, activations)

    def _add(self, activations: dict[str, Array]) -> None:
        by_size = sorted(activations, key=lambda name: -activations[name].size)
        shares = [by_size[i :: self._threads] for i in range(self._threads)]
        bad = [name for part in self._workers.map(lambda names: self._count(names, activations), shares) for name in part]
        self.broken = next((name for name in self.histograms if name in bad), None)
        self.images += 1

    def _count(self, names: Sequence[str], activations: dict[str, Array]) -> list[str]:
        return [name for name in names if not self.histograms[name].add(activations[name])]

    def close(self) -> None:
        """Wait for the image at hand, then end the threads."""
        self._keeper.shutdown(wait=True)
        self._workers.shutdown(wait=True)

    def save(self, path: Path, origin: Origin) -> None:
        """Write all that is needed to go on."""
        states = [histogram.state() for histogram in self.histograms.values()]
        buffer = io.BytesIO()
        np.savez(
            buffer,
            origin=np.frombuffer(msgspec.json.encode(origin), np.uint8),
            names=np.frombuffer(msgspec.json.encode(list(self.histograms)), np.uint8),
            images=np.array(self.images),
            counts=np.stack([counts for counts, _ in states]),
            states=np.stack([state for _, state in states]),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())

    def load(self, path: Path, origin: Origin) -> None:
        """Take up a saved state. Raises CalibrationError where it is damaged or of other work."""
        remedy = f"Delete {path} to calibrate from the start"
        try:
            with np.load(path, allow_pickle=False) as file:
                found = msgspec.json.decode(file["origin"].tobytes(), type=Origin)
                names, images = msgspec.json.decode(file["names"].tobytes(), type=list[str]), int(file["images"])
                counts, states = file["counts"], file["states"]
        except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
            raise CalibrationError(f"the calibration kept in {path} cannot be read: {error}", remedy=remedy) from error
        difference = found.difference(origin)
        if difference is not None:
            raise CalibrationError(f"the calibration kept in {path} is stale: {difference}", remedy=remedy)
        self.histograms = {name: Histogram.restore(c, s) for name, c, s in zip(names, counts, states, strict=True)}
        self.images = images
