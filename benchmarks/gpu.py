"""Everything that this machine's GPU can build and run, measured. One command: python benchmarks/gpu.py (or make gpu-test)

Stages, in their order of worth where time is short: the driver, ONNX Runtime's CUDA provider, PyTorch, TensorRT-RTX, TensorRT
with trtexec, the tests that need a GPU (`gpu_stages.py`). ResNet-50 has random weights, which cost a GPU what trained ones cost;
the packaged models are judged on the GPU. Each stage runs in a process of its own and leaves its results when it ends, in
benchmarks/results/DEVICE/; a run that was stopped goes on with the stages that are not there (`--again`: with all). They are
joined in benchmarks/results/DEVICE.json and .md after every stage. Each stage is measured by itself: figures of two stages
were not taken in turns.

`--dry` proves what each stage imports, and measures nothing. `--rehearse` walks the same way on a CPU, with played engines: its
numbers mean nothing. `gpu_wheels.py` packs the wheels for a machine that reaches no registry.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from gpu_report import table
from gpu_stages import BATCHES, LATE, REHEARSAL, REHEARSED, ROOT, STAGES, Run, missing
from rich.console import Console
from rich.markdown import Markdown

import toolkit
from toolkit.disk.files import write_atomically
from toolkit.errors import DeviceError, MissingExtra
from toolkit.harness.environment import read_environment
from toolkit.harness.results import Results
from toolkit.runtime.device import Device, best
from toolkit.types import Frozen

NO_GPU = "not measured on a GPU"
CONSOLE = Console(width=120)


class Part(Frozen, frozen=True):
    """What a stage left: `checks` are lines that compare others with us."""

    stage: str
    toolkit: str
    results: Results
    checks: tuple[str, ...] = ()


def find_device() -> tuple[Device | None, str]:
    try:
        return best(), ""
    except (MissingExtra, DeviceError) as error:
        return None, str(error)


def work(name: str, seconds: float, file: Path, rehearse: bool) -> None:
    """One stage, in this process."""
    stage = (REHEARSAL if rehearse else STAGES)[name]
    run = Run(seconds / 60, CONSOLE)
    if lacking := missing(stage):
        run.skip(name, f"{'; '.join(lacking)}. {stage.install}")
    else:
        with tempfile.TemporaryDirectory() as folder, run.stage(name):
            stage.work(run, Path(folder))
    results = Results(
        environment=read_environment(),
        measurements=tuple(run.measurements),
        verdicts=tuple(run.verdicts),
        manifests={s.name: msgspec.to_builtins(s.runner.manifest) for s in run.subjects if s.runner is not None},
        failures=run.skipped,
    )
    write_atomically(file, msgspec.json.encode(Part(name, toolkit.__version__, results, tuple(run.checks))))
    for subject in run.subjects:
        subject.close()


def read(file: Path) -> Part | None:
    """A stage's results; None where there are none, or another version of the toolkit left them."""
    try:
        part = msgspec.json.decode(file.read_bytes(), type=Part)
    except (OSError, msgspec.MsgspecError):
        return None
    return part if part.toolkit == toolkit.__version__ else None


def is_done(file: Path) -> bool:
    """Whether the stage ran, and lacked neither a library nor time."""
    part = read(file)
    return part is not None and part.stage not in part.results.failures and LATE not in part.results.failures.values()


def walk(options: argparse.Namespace, title: str, stem: str) -> None:
    """Every stage that is wanted and not there, in order; what a stage leaves is joined with the rest at once."""
    stages, end = (REHEARSAL if options.rehearse else STAGES), Run(options.minutes, CONSOLE)
    folder = options.output / stem
    folder.mkdir(parents=True, exist_ok=True)
    wanted = options.stages.split(",") if options.stages else list(stages)
    lost: dict[str, str] = {}
    for name in wanted:
        file = folder / f"{name}.json"
        if is_done(file) and not options.again:
            CONSOLE.print(f"{name}: done before, in {file} (--again measures it again)", markup=False)
            continue
        if end.left() < 1:
            lost[name] = LATE
            continue
        file.unlink(missing_ok=True)
        given = ["--rehearse"] if options.rehearse else []
        command = [sys.executable, __file__, *given, "--work", name, "--minutes", f"{end.left() / 60}", "-o", str(file)]
        try:
            code = subprocess.run(command, timeout=end.left() + 120, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
        if read(file) is None:
            lost[name] = f"its process ended with {code} and left nothing"
        join(options.output, stem, title, list(stages), lost, REHEARSED if options.rehearse else BATCHES)
    text = join(options.output, stem, title, list(stages), lost, REHEARSED if options.rehearse else BATCHES)
    CONSOLE.print(Markdown(text))
    CONSOLE.print(f"written: {options.output / stem}.json and .md", markup=False)


def join(out: Path, stem: str, title: str, stages: list[str], lost: dict[str, str], batches: tuple[int, ...]) -> str:
    """Write what there is of all stages; gives the page."""
    parts = [part for name in stages if (part := read(out / stem / f"{name}.json")) is not None]
    skipped = lost | {name: why for part in parts for name, why in part.results.failures.items()}
    measurements = tuple(one for part in parts for one in part.results.measurements)
    verdicts = tuple(one for part in parts for one in part.results.verdicts)
    manifests = {name: card for part in parts for name, card in part.results.manifests.items()}
    results = Results(
        environment=parts[0].results.environment if parts else read_environment(),
        measurements=measurements,
        verdicts=verdicts,
        manifests=manifests,
        failures=skipped,
    )
    results.write(out / f"{stem}.json")
    names = list(dict.fromkeys(one.engine for one in measurements))
    text = table(title, batches, names, measurements, verdicts, [line for part in parts for line in part.checks], skipped)
    write_atomically(out / f"{stem}.md", text.encode())
    return text


def dry() -> bool:
    """Whether each stage's imports work here, each asked in a process of its own; says so by stage."""
    good = True
    for name, stage in STAGES.items():
        asked = "import sys; import gpu_stages as s; m = s.missing(s.STAGES[sys.argv[1]]); print('; '.join(m)); sys.exit(bool(m))"
        command = [sys.executable, "-c", asked, name]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
        why = done.stdout.strip() or done.stderr.strip()[-300:]
        good &= done.returncode == 0
        CONSOLE.print(f"{name}: {'its imports work' if done.returncode == 0 else f'{why}. {stage.install}'}", markup=False)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7.5, help="stages that would begin later are left for the next run")
    parser.add_argument("--stages", help=f"with commas, of {', '.join(STAGES)}; default: all, in this order")
    parser.add_argument("--again", action="store_true", help="measure the stages again that were measured before")
    parser.add_argument("--dry", action="store_true", help="prove each stage's imports and end; 1 where one lacks something")
    parser.add_argument("--rehearse", action="store_true", help="walk the same way on a CPU with played engines")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    options = parser.parse_args()
    known = REHEARSAL if options.rehearse else STAGES
    if unknown := set((options.stages or "").split(",")) - {"", *known}:
        parser.error(f"no stage is called {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    if options.dry:
        sys.exit(not dry())
    if options.work:
        work(options.work, 60 * options.minutes, options.output, options.rehearse)
        return
    if options.rehearse:
        walk(options, f"A rehearsal on a CPU with played engines: {NO_GPU}", "rehearsal")
        return
    device, why = find_device()
    if device is None:
        CONSOLE.print(f"{NO_GPU}: {why}", markup=False)
        dry()
        return
    stem = re.sub(r"[^A-Za-z0-9]+", "-", device.name).strip("-").lower()
    device.close()
    walk(options, f"ResNet-50 on {device.name}", stem)


if __name__ == "__main__":
    main()
