"""Batcher: many callers with one image each share an engine that is fastest on many images. numpy only; apps may embed it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import BusyError, ClosedError, InputError
from toolkit.runtime import forks
from toolkit.types import Array, Classifier, Float


class _Waiting(NamedTuple):
    images: Array  # [n, ...]: what one caller asked about stays together
    alone: bool  # whether a single image was asked about, whose answer has no axis for the batch
    answer: Future[Float]
    since: float


class Ran(NamedTuple):
    """A batch that was answered: how many images, how long each caller waited for it to begin, and how long it took; seconds."""

    images: int
    waited: tuple[float, ...]
    took: float


class Batcher:
    """`submit(image [C, H, W])` -> a Future of its logits [classes]; `submit_batch(images [n, ...])` -> of [n, classes].

    A batch leaves when `max_batch` images wait, or when the oldest has waited `max_wait` seconds (infinity: only when it is
    full). The images of one `submit_batch` leave together, more than `max_batch` of them in a batch of their own. `workers`
    batches may run at once, where the engine takes calls from several threads. `run` takes an array [n, C, H, W] and answers
    [n, classes].

    No more than `max_waiting` images wait (None: any number): further ones are refused at once with BusyError. `ran` is told of
    each batch, by the thread that ran it.

    Where a batch fails its callers' images run again, a caller at a time, so that only the one whose image is at fault gets the
    error. `close` refuses new images, answers all that were taken, and returns when the last is answered. A batcher belongs to
    the process that made it: its threads do not live on in one that is forked off, where it is closed.
    """

    def __init__(
        self,
        run: Classifier,
        *,
        max_batch: int = 32,
        max_wait: float = 0.002,
        workers: int = 1,
        max_waiting: int | None = None,
        ran: Callable[[Ran], None] | None = None,
    ) -> None:
        whole = isinstance(max_batch, Integral) and isinstance(workers, Integral) and isinstance(max_wait, Real)
        if not whole or max_batch < 1 or workers < 1 or not max_wait >= 0:
            raise InputError(f"a batcher of max_batch {max_batch}, max_wait {max_wait} and {workers} workers cannot work")
        if max_waiting is not None and not (isinstance(max_waiting, Integral) and max_waiting >= 1):
            raise InputError(f"a batcher whose queue holds {max_waiting} images cannot work")
        self._run, self._max, self._wait, self._ran = run, max_batch, max_wait, ran
        self._most: float = math.inf if max_waiting is None else max_waiting
        self._gone = "this batcher is closed"
        self._queue: deque[_Waiting] = deque()
        self._images = 0  # of all that wait
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"batcher-{i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()
        forks.watch(self)

    def submit(self, image: Array) -> Future[Float]:
        """Raises ClosedError after `close`, BusyError where too many wait. The Future may be cancelled until its batch leaves."""
        return self._take(np.asarray(image)[None], alone=True)

    def submit_batch(self, images: Array) -> Future[Float]:
        """The same for the images [n, ...] of one caller. n images are taken where none waits, even if n > `max_waiting`."""
        if np.ndim(images) == 0 or len(images) == 0:
            raise InputError("a batcher was given a batch of 0 images")
        return self._take(images, alone=False)

    def _take(self, images: Array, *, alone: bool) -> Future[Float]:
        answer: Future[Float] = Future()
        with self._changed:
            if self._closed:
                raise ClosedError(self._gone, remedy="Make a new one")
            if self._queue and self._images + len(images) > self._most:
                raise BusyError(f"{self._images} images wait already, and the queue holds {self._most}", remedy="Ask again later")
            first = not self._queue
            self._queue.append(_Waiting(images, alone, answer, time.monotonic()))
            self._images += len(images)
            # the first one starts a worker's clock, a full batch ends it; a worker that wakes in between would only look and wait
            if first or self._images >= self._max:
                self._changed.notify()
        return answer

    def __call__(self, image: Array) -> Float:
        """The logits [classes] of one image; waits for them."""
        return self.submit(image).result()

    @property
    def waiting(self) -> int:
        """Images that no batch has taken yet."""
        return self._images

    def _work(self) -> None:
        while batch := self._gather():
            taken = [item for item in batch if item.answer.set_running_or_notify_cancel()]
            if taken:
                self._answer(taken)

    def _gather(self) -> list[_Waiting]:
        """The next batch; empty once the batcher is closed and all images are taken."""
        with self._changed:
            while True:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return []
                left = self._queue[0].since + self._wait - time.monotonic()
                if self._images >= self._max or left <= 0 or self._closed:
                    break
                # another worker may take the queue meanwhile: look again
                self._changed.wait(None if math.isinf(left) else min(left, threading.TIMEOUT_MAX))
            batch = [self._queue.popleft()]
            count = len(batch[0].images)
            while self._queue and count + len(self._queue[0].images) <= self._max:
                batch.append(self._queue.popleft())
                count += len(batch[-1].images)
            self._images -= count
            if self._queue:
                self._changed.notify()  # what is left may be a batch for another worker
            return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        begin = time.monotonic()
        try:
            images = batch[0].images if len(batch) == 1 else np.concatenate([item.images for item in batch])
            logits = np.asarray(self._run(images))
            if logits.ndim == 0 or len(logits) != len(images):
                raise InputError(f"{len(images)} images were answered by an array of shape {list(logits.shape)}")
            if self._ran is not None:
                self._ran(Ran(len(images), tuple(begin - item.since for item in batch), time.monotonic() - begin))
        except BaseException as error:  # whatever it is, it belongs to the callers and not to this thread
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for item in batch:
                self._answer([item])
            return
        start = 0
        for item in batch:
            rows = logits[start : start + len(item.images)]
            item.answer.set_result(rows[0] if item.alone else rows)
            start += len(item.images)

    def close(self) -> None:
        """A second call does nothing more. Called from a Future's callback it does not wait for its own thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def forked(self) -> None:
        """In a forked process: no thread is here to answer, and the lock may be held by one that never was."""
        self._changed, self._closed = threading.Condition(), True
        self._gone = "this batcher's threads stayed in the process that this one was forked from"
        self._queue, self._threads, self._images = deque(), [], 0

    def __reduce__(self) -> Any:
        raise InputError("a batcher cannot be pickled: its threads stay in this process", remedy="Make one in each process")

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
