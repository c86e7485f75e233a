"""The stages of benchmarks/gpu.py, in their order of worth: what each needs, and what it measures.

A stage stands alone: it runs in a process of its own, builds what it measures, and its results are a file of its own.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gpu_report import compare_trtexec
from gpu_subjects import Subject, engine, played, random_images, torch_subjects
from rich.console import Console

from toolkit import pipeline
from toolkit.errors import DeviceError, ToolkitError
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.conditions import Monitor
from toolkit.harness.environment import now
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.measurement import Block, Measurement
from toolkit.recipe import Recipe
from toolkit.runtime.device import best
from toolkit.types import Target

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (1, 8, 32, 128, 256)
REHEARSED = (1, 8)
LATE = "the time was used up: the same command goes on here, --minutes gives more"
TIMED = """
name = "resnet50-{name}"
reference = {{arch = "resnet50", weights = "random:0"}}
calibration = {{data = "packaged:fashion-train", images = 64, method = "minmax"}}
precision = {{compute = "{compute}", int8 = {int8}}}
build = {{target = "tensorrt", batch = [[1, 1, 8], [9, 128, 256]]}}
"""
TIMED_PRECISIONS = {"fp16": ("fp16", "false"), "int8": ("fp16", "true")}
JUDGED = ("fashion-resnet18-int8", "fashion-resnet50-int8")


class Run:
    """What a stage fills in. `skipped`: what was left out, and why."""

    def __init__(self, minutes: float, console: Console) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.console, self.skipped = console, {}
        self.subjects: list[Subject] = []
        self.measurements: list[Measurement] = []
        self.verdicts, self.checks = [], []  # paired verdicts; lines that compare trtexec with us

    def left(self) -> float:
        return self.end - time.monotonic()

    @contextmanager
    def stage(self, name: str, wants: float = 0.0) -> Iterator[bool]:
        """Errors of the toolkit, and a lack of time, leave the stage out and go on with the next."""
        if self.left() < wants:
            self.skip(name, LATE)
            yield False
            return
        self.console.print(f"[bold]{name}[/bold]")
        try:
            yield True
        except ToolkitError as error:
            self.skip(name, str(error))

    def skip(self, name: str, why: str) -> None:
        self.skipped[name] = why
        self.console.print(f"  left out: {name}: {why}", markup=False)


def time_engines(run: Run, target: Target, folder: Path) -> None:
    """ResNet-50 in each precision and the packaged models judged, then latency and throughput of what could be built."""
    last = None
    for name, (compute, int8) in TIMED_PRECISIONS.items():
        recipe = Recipe.parse(TIMED.format(name=name, compute=compute, int8=int8))
        if target.kind == "cuda" and int8 == "true":
            run.skip(f"{recipe.name} for cuda", "INT8 is measured through TensorRT only")
            continue
        with run.stage(f"build {recipe.name} for {target}", wants=60) as go:
            if go:
                last = trip = pipeline.prepare(recipe, proof=False, like=last)
                place = folder / f"{recipe.name}-{target.kind}"
                pipeline.build(trip, target, place)
                run.subjects.append(engine(place))
    judge(run, target, folder)
    time_subjects(run)


def judge(run: Run, target: Target, folder: Path) -> None:
    """The packaged models as INT8 engines, on the GPU, against their references on all test images."""
    for name in () if target.kind == "cuda" else JUDGED:
        recipe = Recipe.load(ROOT / "engines" / f"{name}.toml")
        with run.stage(f"accuracy of {name} on {target}", wants=60) as go:
            if not go:
                continue
            trip = pipeline.prepare(recipe)
            pipeline.build(trip, target, folder / f"{name}-{target.kind}")
            images = pipeline.proof_images(recipe)
            with engine(folder / f"{name}-{target.kind}").runner as runner:
                logits = answers_of(runner, images, batch=32, name=f"{name} on {target}")
            verdict = compare_accuracy(trip.truth, logits, images.labels, recipe.accept, name=f"{name} on {target}")
            run.verdicts.append(verdict)
            run.console.print(f"  {verdict.engine}: {verdict.text}", markup=False)


def time_subjects(run: Run, batches: Sequence[int] = BATCHES, seconds: float = 90.0, each: float = 2.0) -> None:
    """Latency at each batch, and throughput at the largest two (of a rehearsal, one)."""
    with run.stage("latency", wants=min(60, seconds)) as go:
        if go:
            latency(run, batches, seconds=min(seconds, max(1.0, run.left() / 2)))
    throughput(run, batches[-2:] if len(batches) > 2 else batches[-1:], each)


def add_torch(run: Run, device: str, compile_too: bool = True) -> None:
    import torch

    from toolkit.reference.weights import load_reference

    if device == "cuda" and not torch.cuda.is_available():
        run.skip("PyTorch", f"torch {torch.__version__} is a build without CUDA, or finds no GPU")
        return
    model = load_reference(Recipe.parse(TIMED.format(name="t", compute="fp16", int8="false")).reference, channels=3, classes=1000)
    run.subjects += torch_subjects(model, device, compile_too)


def entries_of(subject: Subject, batches: Sequence[int], images: np.ndarray) -> list[Contender]:
    about = {"precision": subject.precision, "target": subject.target}
    found = []
    for count in subject.batches_of(batches):
        batch = images[:count]
        found.append(Contender(subject.name, count, lambda b=batch: subject.run(b), **about))
        if subject.device_ns is not None:
            clock = subject.device_ns(count)
            found.append(Contender(subject.name, count, lambda: None, clock="device", device_ns=clock, logits=False, **about))
        if subject.runner is not None and count <= 8:
            pictures = [np.full((256, 256, 3), i, np.uint8) for i in range(count)]
            call = lambda p=pictures: subject.runner.classify(p)  # noqa: E731
            found.append(Contender(subject.name, count, call, clock="end-to-end", logits=False, **about))
    return found


def latency(run: Run, batches: Sequence[int], seconds: float) -> None:
    images = random_images(max(batches))
    for subject in list(run.subjects):
        try:
            for count in subject.batches_of(batches):
                subject.run(images[:count])  # what compiles at first sight does so now, outside of the warm-up
        except Exception as error:  # whatever a library raises: this subject is out, the others go on
            run.skip(subject.name, f"{type(error).__name__}: {error}")
            run.subjects.remove(subject)
    entries = [entry for subject in run.subjects for entry in entries_of(subject, batches, images)]
    plan = Sampling(seconds=seconds, warmup=1.0, yardstick=False)
    run.measurements += measure_latency(entries, plan, monitor=Monitor(gpu=True))


def throughput(run: Run, batches: Sequence[int], seconds: float) -> None:
    for subject in run.subjects:
        for count in subject.batches_of(batches):
            with run.stage(f"throughput of {subject.name} at batch {count}", wants=2 * seconds) as go:
                if go:
                    run.measurements.append(offline(subject, count, seconds))


def offline(subject: Subject, count: int, seconds: float, callers: int = 2) -> Measurement:
    """Images a second with `callers` threads at it, each with its own batch, page-locked where the engine lends such memory."""
    lend = getattr(subject.runner.executor if subject.runner is not None else None, "pinned", None)
    batches = [lend(count) if lend is not None else np.empty((count, 3, 224, 224), np.float32) for _ in range(callers)]
    for batch in batches:
        batch[:] = random_images(1)
        for _ in range(3):  # the third run is the first one from a CUDA graph
            subject.run(batch)
    samples: list[int] = []
    failures: list[str] = []
    started, begin = now(), time.perf_counter_ns()

    def work(batch: np.ndarray) -> None:
        try:
            while time.perf_counter_ns() - begin < seconds * 1e9:
                at = time.perf_counter_ns()
                subject.run(batch)
                samples.append(time.perf_counter_ns() - at)
        except ToolkitError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=work, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measurement(
        engine=subject.name,
        precision=subject.precision,
        target=subject.target,
        batch=count,
        clock="with-transfers",
        scenario="offline",
        started=started,
        blocks=(Block(at_ns=0, samples_ns=tuple(samples)),),
        images=count * len(samples),
        duration_ns=time.perf_counter_ns() - begin,
        streams=callers,
        failure=failures[0] if failures else None,
    )


def check_trtexec(run: Run, batches: Sequence[int]) -> None:
    """trtexec on the same engine file, by the same clock: the device only, CUDA graphs on, transfers off."""
    tool = shutil.which("trtexec")
    if tool is None:
        run.skip("trtexec", "it is not on the PATH")
        return
    for subject in [s for s in run.subjects if s.target == "tensorrt" and s.folder is not None]:
        for count in batches:
            with run.stage(f"trtexec on {subject.name} at batch {count}", wants=15) as go:
                if go:
                    run.checks.append(compare_trtexec(tool, subject, count, run.measurements))


class Stage(NamedTuple):
    """`modules` must import for it to run; `install` says how they come. `work` fills a Run in; the folder is for its engines."""

    modules: tuple[str, ...]
    install: str
    work: Callable[[Run, Path], None]


def run_tests(run: Run, *chosen: str) -> None:
    """Tests of tests/gpu. Raises DeviceError where one fails, or none ran."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1]
    if done.returncode or " passed" not in last:
        raise DeviceError(f"tests/gpu: {last}: {done.stdout.strip()[-600:]}")
    run.checks.append(f"tests/gpu {' '.join(chosen)}: {last}")


def time_torch(run: Run, folder: Path) -> None:
    add_torch(run, "cuda")
    time_subjects(run)


def time_rtx(run: Run, folder: Path) -> None:
    with closing(best()) as device:
        target = Target("rtx", device.sm)
    time_engines(run, target, folder)


def time_tensorrt(run: Run, folder: Path) -> None:
    time_engines(run, Target("tensorrt"), folder)
    check_trtexec(run, BATCHES)


def play(run: Run, recording: str, package: str) -> None:
    run.subjects.append(played(f"played-{package.removeprefix('tensorrt_')}", recording, package))
    time_subjects(run, REHEARSED, 1.0, 0.2)


def torch_here(run: Run, folder: Path) -> None:
    add_torch(run, "cpu", compile_too=False)
    time_subjects(run, REHEARSED, 2.0, 0.2)


GPU, RTX = "pip install 'resnet-deploy[gpu]'", "pip install 'resnet-deploy[rtx]'"
STAGES = {
    "driver": Stage(("cuda.bindings", "pytest"), GPU, lambda run, _: run_tests(run, "-k", "contract")),
    "onnxruntime": Stage(("onnxruntime", "cuda.bindings"), GPU, lambda run, folder: time_engines(run, Target("cuda"), folder)),
    "pytorch": Stage(("torch",), "pip install 'resnet-deploy[export]', with a torch for CUDA", time_torch),
    "rtx": Stage(("tensorrt_rtx", "cuda.bindings"), RTX, time_rtx),
    "tensorrt": Stage(("tensorrt", "cuda.bindings"), GPU, time_tensorrt),
    "tests": Stage(("pytest", "cuda.bindings"), "pip install 'resnet-deploy[dev]'", lambda run, _: run_tests(run)),
}
REHEARSAL = {
    "played-tensorrt": Stage((), "", lambda run, _: play(run, "tensorrt-11.4.json", "tensorrt")),
    "played-rtx": Stage((), "", lambda run, _: play(run, "tensorrt-rtx-1.7.json", "tensorrt_rtx")),
    "pytorch": Stage(("torch",), "", torch_here),
}


def missing(stage: Stage) -> list[str]:
    """What does not import, and why: each in this process, so ask in one of its own."""
    found = []
    for module in stage.modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a wheel beside the wrong library raises whatever it likes
            found.append(f"{module}: {type(error).__name__}: {error}")
    return found
