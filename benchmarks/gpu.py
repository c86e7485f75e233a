"""Everything that this machine's GPU can build and run, measured. One command: python benchmarks/gpu.py (or make gpu-test)

It builds ResNet-50 (random weights, which cost the GPU what trained ones cost) and the packaged models for TensorRT,
TensorRT-RTX and ONNX Runtime's CUDA provider, takes the accuracy verdicts on the GPU, then latency and throughput at batch
1, 8, 32, 128 and 256 beside PyTorch, by three clocks, and compares trtexec where it is on the PATH. What is missing is said
and left out. Results: benchmarks/results/<device>.json and .md. `--rehearse` walks the same way on a CPU, with
played engines: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
from gpu_report import compare_trtexec, table
from gpu_subjects import Subject, engine, played, random_images, torch_subjects
from rich.console import Console
from rich.markdown import Markdown

from toolkit import pipeline
from toolkit.disk.files import write_atomically
from toolkit.errors import DeviceError, MissingExtra, ToolkitError
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.harness.conditions import Monitor
from toolkit.harness.environment import now, read_environment
from toolkit.harness.lane import Contender
from toolkit.harness.latency import Sampling, measure_latency
from toolkit.harness.measurement import Block, Measurement
from toolkit.harness.results import Results
from toolkit.recipe import Recipe
from toolkit.runtime.device import Device, best
from toolkit.types import Target

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (1, 8, 32, 128, 256)
NO_GPU = "not measured on a GPU"
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
    """What the stages fill in. `skipped`: what was left out, and why."""

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
            self.skip(name, "the time was used up; --minutes gives more")
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


def find_device() -> tuple[Device | None, str]:
    try:
        return best(), ""
    except (MissingExtra, DeviceError) as error:
        return None, str(error)


def targets_for(device: Device) -> tuple[Target, ...]:
    return (Target("tensorrt"), Target("rtx", device.sm), Target("cuda"))


def build_engines(run: Run, device: Device, folder: Path) -> None:
    """Every target and precision that this machine can build, one by one, so that one failure costs one engine."""
    last = None
    for name, (compute, int8) in TIMED_PRECISIONS.items():
        recipe = Recipe.parse(TIMED.format(name=name, compute=compute, int8=int8))
        trip = None
        for target in targets_for(device):
            if target.kind == "cuda" and int8 == "true":
                run.skip(f"{recipe.name} for cuda", "INT8 is measured through TensorRT only")
                continue
            with run.stage(f"build {recipe.name} for {target}", wants=60) as go:
                if go:
                    last = trip = trip or pipeline.prepare(recipe, proof=False, like=last)
                    place = folder / f"{recipe.name}-{target.kind}"
                    pipeline.build(trip, target, place)
                    run.subjects.append(engine(place))


def judge(run: Run, device: Device, folder: Path) -> None:
    """The packaged models as INT8 engines, on the GPU, against their references on all test images."""
    for name in JUDGED:
        recipe = Recipe.load(ROOT / "engines" / f"{name}.toml")
        trip = None
        for target in targets_for(device)[:2]:
            with run.stage(f"accuracy of {name} on {target}", wants=60) as go:
                if not go:
                    continue
                trip = trip or pipeline.prepare(recipe)
                pipeline.build(trip, target, folder / f"{name}-{target.kind}")
                images = pipeline.proof_images(recipe)
                with engine(folder / f"{name}-{target.kind}").runner as runner:
                    logits = answers_of(runner, images, batch=32, name=f"{name} on {target}")
                accept = recipe.accept
                verdict = compare_accuracy(
                    trip.truth, logits, images.labels, accept, name=f"{name} on {target}"
                )
                run.verdicts.append(verdict)
                run.console.print(f"  {verdict.engine}: {verdict.text}", markup=False)


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


def finish(run: Run, title: str, batches: Sequence[int], out: Path, stem: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = table(title, batches, run.subjects, run.measurements, run.verdicts, run.checks, run.skipped)
    manifests = {s.name: msgspec.to_builtins(s.runner.manifest) for s in run.subjects if s.runner is not None}
    results = Results(
        environment=read_environment(),
        measurements=tuple(run.measurements),
        verdicts=tuple(run.verdicts),
        manifests=manifests,
        failures=run.skipped,
    )
    results.write(out / f"{stem}.json")
    write_atomically(out / f"{stem}.md", text.encode())
    run.console.print(Markdown(text))
    run.console.print(f"written: {out / stem}.json and .md", markup=False)


def rehearse(run: Run, out: Path, torch_too: bool = True) -> None:
    """The same stages on the CPU, small and played: it proves the way, not the numbers."""
    batches = (1, 8)
    run.subjects += [played("played-tensorrt", "tensorrt-11.4.json", "tensorrt")]
    run.subjects += [played("played-rtx", "tensorrt-rtx-1.7.json", "tensorrt_rtx")]
    if torch_too:
        add_torch(run, "cpu", compile_too=False)
    with run.stage("latency") as go:
        if go:
            latency(run, batches, seconds=2.0)
    throughput(run, batches[-1:], 0.2)
    check_trtexec(run, batches)
    finish(run, f"A rehearsal on a CPU with played engines: {NO_GPU}", batches, out, "rehearsal")
    for subject in run.subjects:
        subject.close()


def measure(run: Run, device: Device, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build_engines(run, device, Path(folder))
        judge(run, device, Path(folder))
        with run.stage("PyTorch", wants=30) as go:
            if go:
                add_torch(run, "cuda")
        with run.stage("latency", wants=60) as go:
            if go:
                latency(run, BATCHES, seconds=min(90.0, run.left() / 2))
        throughput(run, (128, 256), 2.0)
        check_trtexec(run, BATCHES)
        stem = re.sub(r"[^A-Za-z0-9]+", "-", device.name).strip("-").lower()
        finish(run, f"ResNet-50 on {device.name}", BATCHES, out, stem)
        for subject in run.subjects:
            subject.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7.5, help="stages that would end later are left out")
    parser.add_argument("--rehearse", action="store_true", help="walk the same way on a CPU with played engines")
    parser.add_argument("--played-only", action="store_true", help="rehearse without PyTorch: seconds")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    options = parser.parse_args()
    console = Console(width=120)
    run = Run(options.minutes, console)
    if options.rehearse:
        rehearse(run, options.output, torch_too=not options.played_only)
        return
    device, why = find_device()
    if device is None:
        console.print(f"{NO_GPU}: {why}", markup=False)
        for name, missing in missing_parts().items():
            console.print(f"  {name}: {missing}", markup=False)
        return
    measure(run, device, options.output)


def missing_parts() -> dict[str, str]:
    """What else a machine needs for a full run, part by part."""
    parts = {
        "TensorRT": ("tensorrt", "pip install 'resnet-deploy[gpu]'"),
        "TensorRT-RTX": ("tensorrt_rtx", "pip install 'resnet-deploy[rtx]'"),
        "ONNX Runtime": ("onnxruntime", "pip install 'resnet-deploy[gpu]'"),
        "PyTorch": ("torch", "pip install 'resnet-deploy[export]'"),
    }
    found = {name: "is installed" if find_spec(module) else f"missing: {how}" for name, (module, how) in parts.items()}
    found["trtexec"] = "is on the PATH" if shutil.which("trtexec") else "is not on the PATH"
    return found


if __name__ == "__main__":
    main()
