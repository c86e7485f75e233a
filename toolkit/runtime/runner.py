"""Runner: a live engine. ndarray in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from toolkit import images
from toolkit.errors import ClosedError, InputError
from toolkit.manifest import Manifest
from toolkit.runtime.arrays import DeviceArray, adopt
from toolkit.types import Array, Executor, Float


class Prediction(NamedTuple):
    """One class of an answer; `probability` is the softmax of the logits."""

    label: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which has no use here
    probability: float


class Runner:
    """float32 [N, C, H, W] (or [N, H, W, C] where the manifest says NHWC) -> logits float32 [N, classes].

    Any N from 1 up: a batch that the engine cannot take at once is split. A tensor of another library is read where it is
    (DLPack, or the CUDA array interface); on a GPU only by an engine that runs on that GPU. Threads may call it at once.
    It is a context manager; use after `close` raises ClosedError; a wrong shape, dtype or an empty batch InputError.
    """

    def __init__(self, manifest: Manifest, executor: Executor, open_again: Callable[[], Executor] | None = None) -> None:
        self.manifest = manifest
        self._open_again = open_again
        self._use(executor)
        spec = manifest.inputs[0]
        self._shape = tuple(spec.shape[1:])
        self._dtype = np.dtype(spec.dtype)

    def _use(self, executor: Executor) -> None:
        self._executor: Executor | None = executor
        self._run = executor.run
        self._zero_copy = getattr(executor, "zero_copy", False)  # whether it takes a DeviceArray too
        self._max = executor.max_batch or (1 << 62)

    def __call__(self, batch: Array) -> Float:
        if self._executor is None:
            raise ClosedError(f"the runner of {self.manifest.name} is closed", remedy="Load the engine again")
        if type(batch) is not np.ndarray:
            batch = self._adopt(batch)
        self._check(batch)
        if len(batch) <= self._max:
            return self._run(batch)
        return np.concatenate([self._run(batch[i : i + self._max]) for i in range(0, len(batch), self._max)])

    @property
    def executor(self) -> Executor | None:
        """What runs the compiled file; None once closed."""
        return self._executor

    def classify(self, pictures: Iterable[Any] | Any, top: int = 5) -> list[list[Prediction]]:
        """The `top` classes of each picture: paths, Pillow images or uint8 arrays [H, W] or [H, W, 3]; one or many."""
        many = images.as_list(pictures)
        batch = np.stack([images.preprocess(picture, self.manifest.preprocess) for picture in many])
        return [self._best(logits, top) for logits in self(batch)]

    def _best(self, logits: Float, top: int) -> list[Prediction]:
        exponent = np.exp(logits - logits.max(), dtype=np.float64)
        probability = exponent / exponent.sum()
        names = self.manifest.classes
        order = np.argsort(-logits, kind="stable")[:top]
        return [Prediction(names[i] if names else str(i), int(i), float(probability[i])) for i in order]

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

    @property
    def can_reopen(self) -> bool:
        return self._open_again is not None

    def reopen(self) -> None:
        """Close the engine and open it anew: other threads, other memory. Not while another thread calls it.

        Raises ClosedError after `close`, or where it was not opened from a folder; and what opening raises: then it is closed.
        """
        if self._executor is None or self._open_again is None:
            raise ClosedError(f"the runner of {self.manifest.name} cannot be opened again", remedy="Load the engine again")
        self.close()
        self._use(self._open_again())

    def close(self) -> None:
        """Free what the engine holds. A second call does nothing."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
