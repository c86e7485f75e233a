"""Runner: a live engine. ndarray in, logits out."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from toolkit.cpu import cores
from toolkit.errors import ClosedError, DataError, InputError, named_options
from toolkit.images.ahead import read_ahead
from toolkit.images.picture import pictures_of, preprocess
from toolkit.manifest import Manifest
from toolkit.runtime import forks
from toolkit.runtime.arrays import DeviceArray, adopt
from toolkit.types import Array, Executor, Float

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# What an engine without a limit of its own is given at once: its memory grows with a batch, and is kept.
SLICE_BYTES, SLICE_IMAGES = 1 << 24, 64
AHEAD_BYTES = 1 << 28  # of pictures that are read before the engine asks for them


class Prediction(NamedTuple):
    """One class of an answer, or one label of several that may hold at once; `probability` as the engine's outputs mean it.

    >>> from toolkit import Prediction
    >>> Prediction("Ankle boot", 9, 0.98).label
    'Ankle boot'
    """

    label: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use here
    probability: float


class Runner:
    """float32 [N, C, H, W] (or [N, H, W, C] where the manifest says NHWC) -> logits float32 [N, classes]. An engine with its
    preprocessing inside takes uint8 [N, H, W, C], RGB or gray. `manifest.inputs` says which, `preprocess` makes either.

    Any N from 1 up: a batch that the engine cannot take at once is split. A tensor of another library is read where it is
    (DLPack, or the CUDA array interface); on a GPU only by an engine that runs on that GPU. Threads may call it at once.
    It is a context manager; use after `close` raises ClosedError; a wrong shape, dtype or an empty batch InputError, and with
    `check_finite` one that holds NaN or infinity, which INT8 answers as if it were a picture.

    It belongs to the process that opened it: in one that is forked off it is closed. Pickled, it is reopened from its folder.

    >>> import toolkit
    >>> with toolkit.load("engines/built/fashion-resnet18-int8", threads=1) as runner:
    ...     runner(runner.preprocess(["pictures/boot.png"])).shape
    (1, 10)
    """

    def __init__(
        self,
        manifest: Manifest,
        executor: Executor,
        open_again: Callable[[], Executor] | None = None,
        *,
        check_finite: bool = False,
    ) -> None:
        self.manifest = manifest
        self._open_again, self._finite = open_again, check_finite
        self._gone = f"the runner of {manifest.name} is closed"
        spec = manifest.inputs[0]
        self._shape = tuple(spec.shape[1:])
        self._dtype = np.dtype(spec.dtype)
        self._use(executor)
        self._threads: ThreadPoolExecutor | None = None  # of `acall`
        forks.watch(self)

    def _use(self, executor: Executor) -> None:
        self._executor: Executor | None = executor
        self._zero_copy = getattr(executor, "zero_copy", False)  # whether it takes a DeviceArray too
        image = max(1, self._dtype.itemsize * math.prod(size for size in self._shape if isinstance(size, int)))
        self._max = executor.max_batch or max(SLICE_IMAGES, self.manifest.largest, SLICE_BYTES // image)
        self._ahead = max(1, min(SLICE_IMAGES, AHEAD_BYTES // image))
        self._call = executor.run, self._max  # one value, so that a call sees both of one engine

    def __repr__(self) -> str:
        ends = self.manifest.inputs[0], self.manifest.outputs[0]
        shapes = " -> ".join(f"[{', '.join(map(str, spec.shape))}]" for spec in ends)
        return f"<Runner of {self.manifest.name}: {shapes}{', closed' if self._executor is None else ''}>"

    def __call__(self, batch: Array) -> Float:
        if self._executor is None:
            raise ClosedError(self._gone, remedy="Load the engine again")
        if type(batch) is not np.ndarray:
            batch = self._adopt(batch)
        self._check(batch)
        run, most = call = self._call
        try:
            if len(batch) <= most:
                return run(batch)
            return np.concatenate([run(batch[i : i + most]) for i in range(0, len(batch), most)])
        except ClosedError:
            if self._call is call:
                raise
            return self(batch)  # the engine was replaced after this call had begun and before it was run

    async def acall(self, batch: Array) -> Float:
        """`self(batch)` in a thread, while the event loop goes on; the array must not be written to until it is answered.

        Raises what a call raises. As many calls run at once as there are cores, at least two; others wait their turn. One that is
        cancelled before its turn is not run, one that runs is run to its end.
        """
        if self._executor is None:  # in a forked process the threads are gone too
            raise ClosedError(self._gone, remedy="Load the engine again")
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        if self._threads is None:  # its own: an event loop's pool is shared with whatever else an app waits for
            self._threads = ThreadPoolExecutor(max(2, cores()), f"runner-{self.manifest.name}")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self, batch)

    @property
    def executor(self) -> Executor | None:
        """What runs the compiled file; None once closed."""
        return self._executor

    @named_options
    def classify(self, pictures: Iterable[Any] | Any, top: int = 5) -> list[list[Prediction]]:
        """The `top` classes of each picture: paths, Pillow images, arrays or tensors; one or many.

        The class answered comes first. A multi-label engine gives its most likely labels, each with a probability of its own.
        """
        found = []
        for answer in self.answers(pictures, top):
            if isinstance(answer, DataError):
                raise answer
            found.append(answer)
        return found

    @named_options
    def answers(self, pictures: Iterable[Any] | Any, top: int = 5) -> Iterator[list[Prediction] | DataError]:
        """As `classify`, one after another in the memory of a few: for long lists. A bad file's answer is its DataError, and so
        is that of a picture which the engine answers with NaN.

        Threads read the next batch's pictures while the engine works on this one.
        """
        step = min(self._max, self._ahead)
        with closing(self._images(pictures, step)) as images:
            while some := list(islice(images, step)):
                good = [image for image in some if not isinstance(image, DataError)]
                best = iter(self._best(self(np.stack(good)), top) if good else ())
                yield from (image if isinstance(image, DataError) else next(best) for image in some)

    @named_options
    def preprocess(self, pictures: Iterable[Any] | Any) -> Array:
        """What the engine takes for these pictures (see `classify`), in one array [n, ...]: float32, or uint8 for an engine with
        its preprocessing inside. Raises DataError, which names the picture."""
        found = []
        with closing(self._images(pictures, self._ahead)) as images:
            for image in images:
                if isinstance(image, DataError):
                    raise image
                found.append(image)
        return np.stack(found)

    def _images(self, pictures: Any, most: int) -> Generator[Array | DataError, None, None]:
        """Pictures decoded and resized on threads of their own, at most `most` ahead of whoever asks."""
        return read_ahead(pictures_of(pictures, self.manifest.preprocess.color), self._read, most)

    def _read(self, picture: Any) -> Array | DataError:
        try:
            return preprocess(picture, self.manifest.preprocess)
        except DataError as error:
            return error

    @named_options
    def predictions(self, outputs: Float, top: int = 5) -> list[list[Prediction]]:
        """Answers [n, columns] of this engine, read as its manifest says they are meant. Raises DataError where one holds NaN."""
        found = []
        for answer in self._best(outputs, top):
            if isinstance(answer, DataError):
                raise answer
            found.append(answer)
        return found

    def _best(self, outputs: Float, top: int) -> list[list[Prediction] | DataError]:
        meaning, names = self.manifest.meaning, self.manifest.classes
        order, probabilities = meaning.order(outputs, top), meaning.probabilities(outputs)
        finite = np.isfinite(probabilities.sum(axis=1))  # NaN sorts behind every class: another would come first
        return [
            [Prediction(names[i] if names else str(i), int(i), float(row[i])) for i in best] if good else self._no_answer()
            for best, row, good in zip(order, probabilities, finite, strict=True)
        ]

    def _no_answer(self) -> DataError:
        remedy = "Look for the layer that overflows: toolkit inspect ENGINE, and keep it in FP32 (precision.keep_fp32)"
        return DataError(f"{self.manifest.name} answers this picture with NaN or infinity", remedy=remedy)

    def _adopt(self, batch: Any) -> Any:
        """The same memory as an ndarray, or as a DeviceArray for an engine that reads the GPU's memory."""
        array = adopt(batch)
        if isinstance(array, DeviceArray) and not self._zero_copy:
            raise InputError(f"the input is on a GPU, {self.manifest.name} runs on the CPU", remedy="Copy it to the host first")
        return array

    def _check(self, batch: Array) -> None:
        shape = getattr(batch, "shape", None)
        if shape is None or len(shape) == 0 or shape[1:] != self._shape:
            want = ", ".join(["N", *map(str, self._shape)])
            got = f"an array of shape {list(shape)}" if shape is not None else type(batch).__name__
            raise InputError(f"{self.manifest.name} takes [{want}], not {got}")
        if batch.dtype != self._dtype:
            what = f"{self.manifest.name} takes {self._dtype}, not {batch.dtype}"
            raise InputError(what, remedy=f"Use batch.astype('{self._dtype}')")
        if shape[0] == 0:
            raise InputError(f"{self.manifest.name} was given a batch of 0 images")
        if self._finite and self._dtype.kind == "f":
            self._check_finite(batch)

    def _check_finite(self, batch: Array) -> None:
        if isinstance(batch, DeviceArray):
            raise InputError(f"the input of {self.manifest.name} is on a GPU, where `check_finite` cannot see it")
        if not np.isfinite(batch).all():
            first = int(np.flatnonzero(~np.isfinite(batch).reshape(len(batch), -1).all(1))[0])
            raise InputError(f"image {first} of the batch for {self.manifest.name} holds NaN or infinity")

    @property
    def can_reopen(self) -> bool:
        return self._open_again is not None

    def reopen(self) -> None:
        """Close the engine and open it again: other threads, other memory. Not while another thread calls it.

        Raises ClosedError after `close`, or where it was not opened from a folder; and what opening raises: then it is closed.
        """
        if self._executor is None or self._open_again is None:
            raise ClosedError(f"the runner of {self.manifest.name} cannot be opened again", remedy="Load the engine again")
        self.close()
        self._use(self._open_again())

    def replace(self, other: Runner) -> None:
        """From now on calls are answered by the engine of `other`, which is taken from it: `runner.replace(toolkit.load(path))`.

        No call is lost: those under way are answered by the engine that they began on, which is closed once it has answered
        them. Raises InputError, with nothing changed, where the new engine takes other arrays or pictures, or its answers mean
        other classes; ClosedError where either runner is closed.
        """
        if self._executor is None or other._executor is None or other is self:
            raise ClosedError(f"the runner of {self.manifest.name} cannot be replaced", remedy="Load both engines first")
        mine, others = self.manifest.contract, other.manifest.contract
        if different := [name for name in mine if mine[name] != others[name]]:
            what = f"{other.manifest.name} cannot replace {self.manifest.name}: they differ in {', '.join(different)}"
            raise InputError(what, remedy="Load it as a runner of its own")
        old, new = self._executor, other._executor
        if self._zero_copy and not getattr(new, "zero_copy", False):
            raise InputError(f"{other.manifest.name} cannot replace {self.manifest.name}: it reads no arrays on a GPU")
        other._executor = None
        self.manifest, self._open_again = other.manifest, other._open_again
        self._gone = f"the runner of {self.manifest.name} is closed"
        self._use(new)
        old.close()

    def forked(self) -> None:
        """In a forked process: the executor's threads and device are the parent's, and to free it would wait for them."""
        self._gone = f"the runner of {self.manifest.name} was opened in the process that this one was forked from"
        executor, self._executor = self._executor, None
        self._threads = None
        forks.abandon(executor)

    def __reduce__(self) -> Any:
        if self._open_again is None:
            what = f"the runner of {self.manifest.name} was not opened from a folder, and cannot be pickled"
            raise InputError(what, remedy="Open it in each process")
        return _opened, (self.manifest, self._open_again, self._finite)

    def close(self) -> None:
        """Free what the engine holds. A second call does nothing."""
        executor, self._executor = self._executor, None
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)  # calls that wait for their turn answer that the runner is closed
        if executor is not None:
            executor.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _opened(manifest: Manifest, open_again: Callable[[], Executor], check_finite: bool) -> Runner:
    """A pickled runner, in the process that it came to."""
    return Runner(manifest, open_again(), open_again, check_finite=check_finite)
