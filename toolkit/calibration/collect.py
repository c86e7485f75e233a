"""Collect: one pass of images through the graph fills a Histogram for each watched tensor.

Images run singly, however they arrive: what a kernel gives for an image can depend, in its last bit, on how many others share
its batch, and on a CPU a larger batch runs no faster. So neither the batch size nor the order of the images shows in the ranges.
Two are on their way at a time, each on a walk of its own: threads that share one image wait for each other at every layer. Two
more wait their turn, so that no walk waits for the other.
Memory: the activations of two residual blocks for each, and 480 KiB a tensor, for any number of images.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from toolkit import cpu
from toolkit.calibration.fingerprint import Fingerprint
from toolkit.calibration.histogram import Histogram
from toolkit.calibration.observer import Observer, Walk
from toolkit.calibration.ranges import Origin, Ranges, TensorRange
from toolkit.disk.files import sha256_bytes, write_atomically
from toolkit.errors import CalibrationError
from toolkit.types import Array, Float, Progress

if TYPE_CHECKING:
    import onnx_ir as ir

SAVE_EVERY = 20.0  # seconds
WALKS = 2  # images at a time
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
    tally: Tally | None = None,
) -> Ranges:
    """Ranges of `tensors` over all `images`, which are batches [n, *input shape] float32 of any n.

    `tally` brings what images before these gave of the same graph and tensors, and takes away what all gave. `count` is how
    many images there are in all, for `progress`; `name_of(i)` names image i of all in an error. With `checkpoint`, the state is
    kept there every 20 seconds and when the work is cut short (Ctrl-C too); called again with the same arguments, collection
    goes on from it, and the ranges are the same as if nothing had happened. The caller removes the file.

    Raises CalibrationError: no images, a NaN or an infinity in a tensor (named with the image), a checkpoint of other work.
    """
    keeper, origin = _prepare(graph, tensors, threads or cpu.cores(), origin, tally)
    first, saved = keeper.images, time.monotonic()
    if checkpoint is not None:
        keeper.load(checkpoint, origin)
    try:
        for done in _fill(keeper, images, first, name_of):
            if progress is not None:
                progress(done, max(count or 0, done))
            if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY:
                keeper.save(checkpoint, origin)
                saved = time.monotonic()
    except BaseException:
        keeper.close()
        if checkpoint is not None and not keeper.broken:
            keeper.save(checkpoint, origin)
        raise
    keeper.close()
    return keeper.ranges(origin, tally)


def _prepare(
    graph: ir.Model, tensors: Sequence[str], threads: int, origin: Origin | None, tally: Tally | None
) -> tuple[Keeper, Origin]:
    """The graph made ready to run; its origin is found beside that, since hashing the weights takes a while."""
    walks = min(WALKS, threads)
    with ThreadPoolExecutor(1) as aside:
        key = aside.submit(lambda: origin or origin_of(graph, tensors))
        return Keeper(Observer(graph, tensors, threads - walks + 1), tensors, walks, tally), key.result()


def _fill(keeper: Keeper, images: Iterable[Float], first: int, name_of: Callable[[int], str] | None) -> Iterator[int]:
    """Run what the keeper has not seen yet of the images from number `first` on, as many at a time as it takes; yields how many
    are done, one by one."""
    done = landed = keeper.images
    singly = (batch[i : i + 1] for batch in images for i in range(len(batch)))
    for index, image in enumerate(singly, first):
        if index < done:
            continue
        if keeper.is_full:
            _land(keeper, landed, name_of)
            landed += 1
            yield landed
        keeper.start(image)
    while keeper.flying:
        _land(keeper, landed, name_of)
        landed += 1
        yield landed


def _land(keeper: Keeper, index: int, name_of: Callable[[int], str] | None) -> None:
    """Wait for image `index`. Raises CalibrationError where it made a tensor NaN or infinite."""
    bad = keeper.land()
    if bad is not None:
        where = f"image {index}" + (f" ({name_of(index)})" if name_of else "")
        remedy = "Look at that image, then at the weights of the layer: the FP32 graph itself fails on it"
        raise CalibrationError(f"tensor '{bad}' holds a NaN or an infinity for {where}", remedy=remedy)


class Tally:
    """What was counted of a graph's tensors, for a collection over more images to go on from; mutable."""

    def __init__(self) -> None:
        self.histograms: _Histograms = {}
        self.images = 0

    def take(self) -> tuple[_Histograms, int]:
        """All of it; nothing stays, since a collection that fails leaves nothing that could be gone on from."""
        taken = self.histograms, self.images
        self.histograms, self.images = {}, 0
        return taken


class Keeper:
    """The histograms, and threads that fill them, each with a walk through the graph and an image of its own.

    An image that has started is counted whole, whatever interrupts the caller.
    """

    def __init__(self, observer: Observer, tensors: Sequence[str], walks: int, tally: Tally | None = None) -> None:
        counted, self.images = tally.take() if tally is not None else ({}, 0)  # images that are counted
        self.histograms: _Histograms = {name: counted.get(name) or Histogram() for name in tensors}
        self.broken = False  # whether an image is lost halfway: what was counted is of no more use
        self.flying: deque[Future[str | None]] = deque()
        self._observer = observer
        self._free: deque[Walk] = deque(observer.walk() for _ in range(walks))
        self._most = 2 * walks  # images that have started: a walk that is done finds the next one there
        self._threads = ThreadPoolExecutor(walks, "calibration")
        self._locks = {name: threading.Lock() for name in tensors}
        self._counting = threading.Lock()

    @property
    def is_full(self) -> bool:
        return len(self.flying) == self._most

    def start(self, image: Float) -> None:
        """Send a copy of an image on its way. Raises CalibrationError for one of another shape."""
        self._observer.check(image)
        self.flying.append(self._threads.submit(self._count, np.array(image, np.float32, order="C")))

    def _count(self, image: Float) -> str | None:
        """Count an image's activations; the tensor first computed that has a value that is not finite, if any."""
        walk, bad = self._free.popleft(), None
        try:
            bad = [name for name, values in walk(image) if not self._add(name, values)]
        finally:
            self._free.append(walk)
            with self._counting:
                self.images += bad == []
                self.broken |= bad != []
        return bad[0] if bad else None

    def _add(self, name: str, values: Array) -> bool:
        with self._locks[name]:
            return self.histograms[name].add(values)

    def land(self) -> str | None:
        """Wait for the image that started first; the tensor that it broke, if any."""
        bad = self.flying[0].result()
        self.flying.popleft()
        return bad

    def close(self) -> None:
        """Wait for the images on their way, then end the threads, and give back the memory of the activations."""
        self._threads.shutdown(wait=True)
        self._free.clear()
        self.flying.clear()

    def ranges(self, origin: Origin, tally: Tally | None = None) -> Ranges:
        """What was counted, once closed. Histograms go as they are read, unless a tally takes them.

        Raises CalibrationError where there was no image.
        """
        if not self.images:
            remedy = "Check `calibration.data` and `calibration.images`"
            raise CalibrationError("there is no image to calibrate with", remedy=remedy)
        if tally is not None:
            tally.histograms, tally.images = dict(self.histograms), self.images
        tensors = {name: TensorRange.of(self.histograms.pop(name)) for name in tuple(self.histograms)}
        return Ranges(origin=origin, images=self.images, tensors=tensors)

    def save(self, path: Path, origin: Origin) -> None:
        """Write all that is needed to go on, once what is on its way is counted; a disk that takes it not costs only that."""
        wait(self.flying)
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
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, buffer.getvalue())

    def load(self, path: Path, origin: Origin) -> None:
        """Take up a saved state that is further on, if any. Raises CalibrationError where it is damaged or of other work."""
        remedy = f"Delete {path} to calibrate from the start"
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                found = msgspec.json.decode(file["origin"].tobytes(), type=Origin)
                names, images = msgspec.json.decode(file["names"].tobytes(), type=list[str]), int(file["images"])
                counts, states = file["counts"], file["states"]
        except FileNotFoundError:  # none was saved, or another process that did the same work has ended and removed it
            return
        except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
            raise CalibrationError(f"the calibration kept in {path} cannot be read: {error}", remedy=remedy) from error
        difference = found.difference(origin)
        if difference is not None:
            raise CalibrationError(f"the calibration kept in {path} is stale: {difference}", remedy=remedy)
        if images > self.images:
            self.histograms = {name: Histogram.restore(c, s) for name, c, s in zip(names, counts, states, strict=True)}
            self.images = images
