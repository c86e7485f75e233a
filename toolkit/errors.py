"""Every error that the toolkit raises on purpose.

ToolkitError
├── RecipeError         a recipe that cannot mean anything: unknown key, wrong type, contradiction
├── WeightsError        weights that are missing, truncated, of another shape, or not finite
├── DataError           images, labels or folders that cannot be used
├── GraphError          a graph that a pass, a check or a parser refuses; names the node or the tensor
├── CalibrationError    activations or ranges that cannot be used
├── EngineError         an engine folder that is damaged, foreign or of another version
├── BackendError        a library, provider or option that was asked for and is not there
│   └── MissingExtra    a Python package that an extra brings
├── DeviceError         a GPU that is absent, out of memory, or of another kind
├── InputError          an array that a runner cannot take (also a ValueError)
├── ClosedError         a runner, a pool or a batcher that was used after close
├── BusyError           a queue that is full
├── MeasurementError    results that cannot be read, compared or trusted
└── BudgetError         an accuracy budget that cannot be met
    └── UndecidedError  one that may be met: the images are too few to tell
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

# Modules that an extra brings: the package's name, and the extra. A test compares it with pyproject.toml.
_EXPORT = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "numba", "threadpoolctl")
_BROUGHT = {
    **{name: (name.replace("_", "-"), "export") for name in _EXPORT},
    "onnxruntime": ("onnxruntime", "cpu"),
    "openvino": ("openvino", "openvino"),
    "ray": ("ray", "ray"),
    "pyarrow": ("pyarrow", "ray"),
    "tritonclient": ("tritonclient", "triton"),
    "google": ("protobuf", "triton"),
    "cv2": ("opencv-python-headless", "parity"),
    "torchvision": ("torchvision", "parity"),
}


class ToolkitError(Exception):
    """One line that says what went wrong and where; `remedy` is the next command or the thing to change.

    >>> import toolkit
    >>> try:
    ...     toolkit.load("engines/built/nowhere")
    ... except toolkit.ToolkitError as error:
    ...     print(error.what, "|", error.remedy)
    engines/built/nowhere is not an engine: there is no such file or folder | Build one: toolkit build RECIPE
    """

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        if len(what) > 2000:  # a name that fills a file, quoted
            what = f"{what[:1200]} [...] {what[-400:]}"
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}" if self.remedy else self.what


class RecipeError(ToolkitError, ValueError):
    """A recipe that cannot mean anything."""


class WeightsError(ToolkitError):
    """Weights that are missing, truncated, of another shape, or not finite."""


class DataError(ToolkitError):
    """Images, labels or folders that cannot be used."""


class GraphError(ToolkitError):
    """A graph that a pass, a check or a parser refuses."""


class CalibrationError(ToolkitError):
    """Activations or ranges that cannot be used."""


class EngineError(ToolkitError):
    """An engine folder that is damaged, foreign or of another version."""


class BackendError(ToolkitError):
    """A library, provider or option that was asked for and is not there."""


class MissingExtra(BackendError):
    """A Python package that is not installed; `extra` brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the Python package '{package}' is not installed", remedy=f"Run: pip install 'resnet-deploy[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.package, self.extra)  # else it could not come back from another process


@contextmanager
def extras() -> Iterator[None]:
    """Inside, or in a function that it decorates: a module that is not there, and that an extra brings, is a MissingExtra."""
    try:
        yield
    except ModuleNotFoundError as error:
        brought = _BROUGHT.get((error.name or "").partition(".")[0])
        if brought is None:
            raise
        raise MissingExtra(*brought) from error


def named_options(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The same function, which tells an option that it does not have by those that it has, as a ToolkitError."""
    code = function.__code__  # `inspect` would take milliseconds to import
    known = [name for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if name not in ("self", "cls")]

    @wraps(function)
    def call(*arguments: Given.args, **options: Given.kwargs) -> Result:
        for name in options.keys() - set(known):
            raise ToolkitError(f"{code.co_name} has no option '{name}'", remedy=f"It has {', '.join(known)}")
        return function(*arguments, **options)

    return call


class DeviceError(ToolkitError):
    """A GPU that is absent, out of memory, or of another kind."""


class InputError(ToolkitError, ValueError):
    """An array that a runner cannot take."""


class ClosedError(ToolkitError):
    """A runner, a pool or a batcher that was used after close."""


class BusyError(ToolkitError):
    """A queue that is full: what was asked was not begun."""


class MeasurementError(ToolkitError):
    """Results that cannot be read, compared or trusted."""


class BudgetError(ToolkitError):
    """An accuracy budget that cannot be met."""


class UndecidedError(BudgetError):
    """Whether an accuracy budget is met cannot be told with these images."""
