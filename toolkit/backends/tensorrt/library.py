"""TensorRT and TensorRT-RTX behind one door: which library a target needs, what it can do, and what it says while it works."""

from __future__ import annotations

import functools
import importlib
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

from toolkit.errors import BackendError, DeviceError, MissingExtra
from toolkit.types import Target

# The second module of each pair is the first's binding wheel, which also stands alone beside a system-wide library.
MODULES = {"tensorrt": ("tensorrt", "tensorrt_bindings"), "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
EXTRAS = {"tensorrt": "gpu", "rtx": "rtx"}
OLDEST = {"tensorrt": (10, 13), "rtx": (1, 2)}  # below these: no strongly typed network with all that a graph here holds


WARNING = 2


class Message(NamedTuple):
    """One line of the library's log; `severity` is its own scale: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose."""

    severity: int
    text: str


class Library(NamedTuple):
    """A loaded library: `kind` is tensorrt or rtx, `trt` the module (both have nearly the same names in it)."""

    kind: str
    trt: Any
    version: str

    @property
    def name(self) -> str:
        return "TensorRT-RTX" if self.kind == "rtx" else "TensorRT"

    @property
    def package(self) -> str:
        return MODULES[self.kind][0]

    @property
    def release(self) -> tuple[int, ...]:
        return release(self.version)

    @property
    def architectures(self) -> dict[int, str]:
        """SM number -> the library's name of it, for every SM that it can build for without its GPU; empty where it cannot."""
        if self.kind != "rtx":
            return {}
        names = self.trt.ComputeCapability.__members__
        return {int(name[2:]): name for name in names if re.fullmatch(r"SM\d+", name)}


def release(version: str) -> tuple[int, ...]:
    """`11.4.0.106` -> (11, 4, 0, 106)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def load(kind: str) -> Library:
    """The library of target kind `tensorrt` or `rtx`. Raises MissingExtra, or BackendError where it cannot load or is too old."""
    module = _import(kind)
    library = Library(kind, module, str(module.__version__))
    if library.release < OLDEST[kind]:
        oldest = ".".join(map(str, OLDEST[kind]))
        raise BackendError(
            f"{library.name} {library.version} is older than {oldest}, the first that this toolkit's graphs need",
            remedy=f"Run: pip install --upgrade {library.package.replace('_', '-')}",
        )
    return library


def _import(kind: str) -> ModuleType:
    failures = []
    for name in MODULES[kind]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, *MODULES[kind]):
                failures.append(f"{name}: {error}")
        except (ImportError, OSError, RuntimeError) as error:  # the wheel is there and its shared libraries are not
            failures.append(f"{name}: {error}")
    package = MODULES[kind][0].replace("_", "-")
    if failures:
        remedy = f"Run: pip install --force-reinstall {package}"
        raise BackendError(f"{package} is installed and cannot be loaded ({failures[0]})", remedy=remedy)
    raise MissingExtra(package, EXTRAS[kind])


def require_architectures(library: Library, target: Target) -> dict[int, str]:
    """SM -> the library's name, for every SM of the target. Raises BackendError, which lists the SMs that the library names."""
    known, wanted = library.architectures, {sm for sm in (target.sm, *target.also) if sm is not None}
    if target.onward:
        wanted = {sm for sm in known if sm >= min(wanted)}
    missing = sorted(wanted - known.keys())
    if missing or not wanted:
        listed = ", ".join(f"sm{sm}" for sm in sorted(known))
        unknown = ", ".join(f"sm{sm}" for sm in missing) or str(target)
        raise BackendError(f"{library.name} {library.version} cannot build for {unknown}", remedy=f"Use one of {listed}")
    return {sm: known[sm] for sm in sorted(wanted)}


class Log:
    """What the library said. `handle` is the object to give to the library; it takes one in a process and keeps to it.

    `recent` holds the last warnings and errors, for a call that fails outside any `listen` block.
    """

    def __init__(self, trt: Any) -> None:
        self.handle = _handle(trt, self._hear)
        self.recent: deque[Message] = deque(maxlen=20)
        self._heard: list[Message] | None = None
        self._turn = threading.Lock()

    def _hear(self, severity: int, text: str) -> None:
        message = Message(severity, text)
        if severity <= WARNING:
            self.recent.append(message)
        if self._heard is not None:
            self._heard.append(message)

    @contextmanager
    def listen(self) -> Iterator[list[Message]]:
        """Everything that is said inside the block. One block at a time: the library does not say for whom it speaks."""
        with self._turn:
            heard: list[Message] = []
            self._heard = heard
            try:
                yield heard
            finally:
                self._heard = None


@functools.cache
def log_of(trt: Any) -> Log:
    """The process's log of a library: TensorRT takes the first logger that it is given and warns of any other."""
    return Log(trt)


def _handle(trt: Any, hear: Any) -> Any:
    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            hear(int(severity), text)

    return Listener()


def warnings_of(heard: list[Message]) -> tuple[str, ...]:
    """The warnings, each once, in the order in which they came."""
    return tuple(dict.fromkeys(message.text.strip() for message in heard if message.severity == WARNING))


def errors_of(heard: list[Message]) -> str:
    """The first error that says something, on one line; empty where there was none."""
    texts = [" ".join(message.text.split()) for message in heard if message.severity < WARNING]
    return next((text for text in texts if "catchCudaError" not in text), texts[0] if texts else "")


def explain(library: Library, what: str, heard: list[Message]) -> BackendError | DeviceError:
    """The one error for a call that gave nothing back: no driver, out of memory, or the library's own words."""
    said = " | ".join(message.text for message in heard if message.severity < WARNING)
    if re.search(r"cudaError(_t)? ?(35|100|3)\b|no CUDA-capable device|insufficient for CUDA", said) and library.kind != "rtx":
        return no_driver(library, what)
    if re.search(r"out of ?memory|OutOfMemory|cudaError ?2\b|MEM_ALLOC_FAILED|workspace limit", said, re.IGNORECASE):
        if library.kind == "rtx":  # which builds without a GPU: what is too small is what the recipe allows it
            return BackendError(f"{what}: its workspace is too small", remedy="Raise or remove `build.workspace_mib`")
        remedy = "Lower `build.batch` or `build.workspace_mib`, or free GPU memory"
        return DeviceError(f"{what}: the GPU is out of memory", remedy=remedy)
    advice = 'Set `compute = "fp16"`, or build for a newer GPU' if "for Turing" in said else None
    return BackendError(f"{what}: {library.name} {library.version} says: {errors_of(heard) or 'nothing'}", remedy=advice)


def no_driver(library: Library, what: str) -> DeviceError:
    """The error for a call that needs a GPU where there is none."""
    return DeviceError(
        f"{what}: {library.name} {library.version} finds no NVIDIA driver or GPU",
        remedy="Install the driver (nvidia-smi must list a GPU), or build with --target rtx:sm89, which needs none",
    )
