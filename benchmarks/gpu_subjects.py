"""What benchmarks/gpu.py measures: engines of the toolkit, PyTorch in three ways, and, for a rehearsal, played ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import toolkit
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.runtime import Runner
from toolkit.runtime.tensorrt import TensorRTExecutor
from toolkit.testing.double import library
from toolkit.testing.host import HostDevice
from toolkit.testing.played import Network
from toolkit.types import Array, Float, TensorSpec

if TYPE_CHECKING:
    import torch  # a stage of another library does without it

RECORDINGS = Path(__file__).resolve().parent.parent / "toolkit" / "testing" / "recordings"


class Subject(NamedTuple):
    """`run` takes a host array; `device_ns` gives, for a batch, what returns the device's own nanoseconds of so many runs."""

    name: str
    precision: str
    target: str
    run: Callable[[Array], Float]
    device_ns: Callable[[int], Callable[[int], list[int]]] | None
    close: Callable[[], None]
    runner: Runner | None = None
    folder: Path | None = None
    only: tuple[int, ...] | None = None  # the batches that it is measured at; None: all

    def batches_of(self, batches: Sequence[int]) -> list[int]:
        return [count for count in batches if self.only is None or count in self.only]


def engine(folder: Path) -> Subject:
    """A built engine. Raises ToolkitError."""
    runner = toolkit.load(folder)
    return of_runner(runner, folder)


def of_runner(runner: Runner, folder: Path | None = None) -> Subject:
    executor, made = runner.executor, runner.manifest
    clock = partial(_device_ns, executor) if hasattr(executor, "time_on_device") else None
    name = made.name if folder is None else folder.name
    return Subject(name, made.precision, made.target, runner, clock, runner.close, runner, folder)


def _device_ns(executor: Any, batch: int) -> Callable[[int], list[int]]:
    return lambda runs: [round(seconds * 1e9) for seconds in executor.time_on_device(batch, runs)]


def torch_subjects(model: torch.nn.Module, device: str, compile_too: bool = True) -> list[Subject]:
    """Eager FP32 (TF32 where PyTorch's default allows it), FP16 in channels_last, and torch.compile of that."""
    import torch

    half = torch.float16 if device == "cuda" else torch.float32
    plain = model.to(device).eval()
    fast = _copy(model).to(device=device, dtype=half, memory_format=torch.channels_last).eval()
    found = [_torch("pytorch-eager", "fp32", plain, device), _torch("pytorch-channels-last", "fp16", fast, device)]
    if compile_too:
        # CUDA graphs inside, as the engines have them.
        compiled = torch.compile(_copy(fast), mode="reduce-overhead" if device == "cuda" else "default")
        # It compiles anew for each batch, which takes most of a minute: two of them must do.
        found.append(_torch("pytorch-compile", "fp16", compiled, device)._replace(only=(1, 128)))
    return found


def _copy(model: torch.nn.Module) -> torch.nn.Module:
    import copy

    return copy.deepcopy(model)


def _torch(name: str, precision: str, model: Any, device: str) -> Subject:
    import torch

    dtype = torch.float16 if precision == "fp16" and device == "cuda" else torch.float32
    layout = torch.contiguous_format if name == "pytorch-eager" else torch.channels_last

    def prepare(batch: Array) -> torch.Tensor:
        return torch.from_numpy(batch).to(device, non_blocking=True).to(dtype=dtype, memory_format=layout)

    def run(batch: Array) -> Float:
        with torch.inference_mode():
            logits: Float = model(prepare(batch)).float().cpu().numpy()
        return logits

    def device_ns(count: int) -> Callable[[int], list[int]]:
        first = next(iter(model.parameters()))
        images = torch.zeros((count, 3, 224, 224), device=first.device, dtype=dtype).to(memory_format=layout)

        def once() -> int:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            with torch.inference_mode():
                start.record()
                model(images)
                end.record()
            torch.cuda.synchronize()
            return round(start.elapsed_time(end) * 1e6)

        return lambda runs: [once() for _ in range(runs)]

    return Subject(name, precision, "pytorch", run, device_ns if device == "cuda" else None, lambda: None)


def played(name: str, recording: str, package: str, shape: tuple[int, ...] = (3, 224, 224)) -> Subject:
    """An engine on host memory that answers with means: it costs next to nothing, and is no measure of anything."""
    recorded = json.loads((RECORDINGS / recording).read_text())
    x = TensorSpec(name="input", dtype="float32", shape=("N", *shape))
    y = TensorSpec(name="logits", dtype="float32", shape=("N", 3))
    network = Network((x,), (y,), ((1, 1, 8), (9, 128, 256)), lambda arrays: {"logits": arrays["input"].mean(axis=(2, 3))})
    device = HostDevice(checked=False, memory=1 << 32)
    trt = library(package, recorded, device, {b"": network})
    made = Manifest(
        name=name,
        target="tensorrt" if package == "tensorrt" else f"rtx:sm{device.sm}",
        file="-",
        precision="fp16",
        inputs=(x,),
        outputs=(y,),
        profiles=(Profile(min=1, opt=1, max=8), Profile(min=9, opt=128, max=256)),
        preprocess=Preprocess(),
        versions={package: recorded["v"]},
    )
    return of_runner(Runner(made, TensorRTExecutor(trt, device, b"", made, logger=trt.ILogger())))


def random_images(count: int, shape: tuple[int, ...] = (3, 224, 224), seed: int = 0) -> Float:
    return np.random.default_rng(seed).standard_normal((count, *shape), dtype=np.float32)
