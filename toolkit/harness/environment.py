"""Environment: the machine, the libraries and the code that a measurement was taken with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from toolkit import cpu
from toolkit.harness import nvml
from toolkit.harness.energy import meter
from toolkit.types import Frozen

PACKAGES = (
    *("resnet-deploy", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "onnx", "onnx-ir", "openvino", "tensorrt"),
    *("tensorrt-rtx", "cuda-bindings", "nvidia-ml-py", "mlcommons-loadgen", "Pillow"),
)
THREAD_SETTINGS = (
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "KMP_BLOCKTIME", "GOMP_SPINCOUNT"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING"),
)


class Gpu(Frozen, frozen=True):
    """One GPU as NVML tells it; clocks in MHz, power in watts."""

    name: str
    driver: str
    memory_mib: int
    sm_mhz: int | None = None
    max_sm_mhz: int | None = None
    memory_mhz: int | None = None
    power_limit_w: float | None = None
    persistence: bool | None = None


class Environment(Frozen, frozen=True):
    """Where and when. `device` is what two files must share to be compared."""

    device: str  # the CPU, as `toolkit.cpu` names it, and its usable cores, and every GPU
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int  # that the machine has
    affinity: tuple[int, ...]  # that this process may use
    governor: str | None
    memory_mib: int
    system: str
    virtual: bool
    thread_settings: dict[str, str]
    gpus: tuple[Gpu, ...]
    gpu_note: str  # why there is no GPU here, or empty
    python: str
    versions: dict[str, str]
    commit: str | None  # of the working tree that the toolkit runs from
    dirty: bool | None
    started: str  # ISO 8601, UTC
    energy: str = ""  # what counts joules, or why nothing does


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_environment(gpu: bool = False) -> Environment:
    """Read this machine. What cannot be read is None or empty, never guessed. `gpu`: the energy counted is the GPU's."""
    flags = cpu.flags()
    affinity = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(os.cpu_count() or 1))
    gpus, note = read_gpus()
    commit, dirty = _git(Path(__file__).parent)
    counter, why = meter(gpu)
    return Environment(
        device=" + ".join([f"{cpu.name()}, {len(affinity)} cores", *(gpu.name for gpu in gpus)]),
        cpu=cpu.name(),
        cpu_flags=flags,
        cores=os.cpu_count() or 1,
        affinity=affinity,
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        memory_mib=_memory(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        virtual="hypervisor" in flags,
        thread_settings={name: os.environ[name] for name in THREAD_SETTINGS if name in os.environ},
        gpus=gpus,
        gpu_note=note,
        python=sys.version.split()[0],
        versions=_versions(),
        commit=commit,
        dirty=dirty,
        started=now(),
        energy=counter.name if counter is not None else why,
    )


def read_gpus() -> tuple[tuple[Gpu, ...], str]:
    """Every GPU that NVML lists, and why there is none where the list is empty."""
    library, note = nvml.open_library()
    if library is None:
        return (), note
    gpus = []
    for index in range(library.nvmlDeviceGetCount()):
        handle = library.nvmlDeviceGetHandleByIndex(index)
        limit = nvml.ask(library.nvmlDeviceGetEnforcedPowerLimit, handle)
        persistence = nvml.ask(library.nvmlDeviceGetPersistenceMode, handle)
        gpus.append(
            Gpu(
                name=_decode(library.nvmlDeviceGetName(handle)),
                driver=_decode(library.nvmlSystemGetDriverVersion()),
                memory_mib=library.nvmlDeviceGetMemoryInfo(handle).total >> 20,
                sm_mhz=nvml.ask(library.nvmlDeviceGetClockInfo, handle, library.NVML_CLOCK_SM),
                max_sm_mhz=nvml.ask(library.nvmlDeviceGetMaxClockInfo, handle, library.NVML_CLOCK_SM),
                memory_mhz=nvml.ask(library.nvmlDeviceGetClockInfo, handle, library.NVML_CLOCK_MEM),
                power_limit_w=None if limit is None else limit / 1000,
                persistence=None if persistence is None else bool(persistence),
            )
        )
    return tuple(gpus), ""


def _decode(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _memory() -> int:
    try:
        return (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) >> 20
    except (ValueError, OSError, AttributeError):
        return 0  # a system without these names


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> tuple[str | None, bool | None]:
    """The commit and whether tracked files differ from it; None where this is no working tree of git."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if ask("ls-files", "--error-unmatch", __file__) is None:
        return None, None  # installed inside somebody else's repository, or no git
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return ask("rev-parse", "HEAD"), None if changes is None else bool(changes)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
