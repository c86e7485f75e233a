"""Batcher: many callers with one image each share an engine that is fastest on many images. numpy only; apps may embed it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from toolkit.errors import ClosedError, InputError
from toolkit.runtime import forks
from toolkit.types import Array, Classifier, Float


class _Waiting(NamedTuple):
    image: Array
    answer: Future[Float]
    since: float


class Batcher:
    """`submit(image [C, H, W])` -> a Future of its logits [classes].

    A batch leaves when `max_batch` images wait, or when the oldest has waited `max_wait` seconds (infinity: only when it is
    full). `workers` batches may run at once, where the engine takes calls from several threads. `run` takes an array
    [n, C, H, W] and answers [n, classes].

    Where a batch fails its images run again one by one, so that only the caller whose image is at fault gets the error.
    `close` refuses new images, answers all that were taken, and returns when the last is answered. A batcher belongs to the
    process that made it: its threads do not live on in one that is forked off, where it is closed.
    """

    def __init__(self, run: Classifier, *, max_batch: int = 32, max_wait: float = 0.002, workers: int = 1) -> None:
        whole = isinstance(max_batch, Integral) and isinstance(workers, Integral) and isinstance(max_wait, Real)
        if not whole or max_batch < 1 or workers < 1 or not max_wait >= 0:
            raise InputError(f"a batcher of max_batch {max_batch}, max_wait {max_wait} and {workers} workers cannot work")
        self._run, self._max, self._wait = run, max_batch, max_wait
        self._gone = "this batcher is closed"
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"batcher-{i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()
        forks.watch(self)

    def submit(self, image: Array) -> Future[Float]:
        """Raises ClosedError after `close`. The Future may be cancelled until its batch leaves."""
        answer: Future[Float] = Future()
        with self._changed:
            if self._closed:
                raise ClosedError(self._gone, remedy="Make a new one")
            self._queue.append(_Waiting(image, answer, time.monotonic()))
            self._changed.notify()
        return answer

    def __call__(self, image: Array) -> Float:
        """The logits [classes] of one image; waits for them."""
        return self.submit(image).result()

    @property
    def waiting(self) -> int:
        """Images that no batch has taken yet."""
        return len(self._queue)

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
                if len(self._queue) >= self._max or left <= 0 or self._closed:
                    break
                # another worker may take the queue meanwhile: look again
                self._changed.wait(None if math.isinf(left) else min(left, threading.TIMEOUT_MAX))
            batch = [self._queue.popleft() for _ in range(min(self._max, len(self._queue)))]
            if self._queue:
                self._changed.notify()  # what is left may be a batch for another worker
            return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        try:
            logits = np.asarray(self._run(np.stack([item.image for item in batch])))
            if logits.ndim == 0 or len(logits) != len(batch):
                raise InputError(f"{len(batch)} images were answered by an array of shape {list(logits.shape)}")
        except BaseException as error:  # whatever it is, it belongs to the callers and not to this thread
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for item in batch:
                self._answer([item])
            return
        for item, row in zip(batch, logits, strict=True):
            item.answer.set_result(row)

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
        self._queue, self._threads = deque(), []

    def __reduce__(self) -> Any:
        raise InputError("a batcher cannot be pickled: its threads stay in this process", remedy="Make one in each process")

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
