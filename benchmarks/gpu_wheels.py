"""Wheels for a machine with a GPU that reaches no registry: python benchmarks/gpu_wheels.py OUT [--stages rtx,driver]

Downloads what the stages of gpu.py need, and the toolkit's own wheel, for one version of Python on Linux, and lays them into
OUT/part.000, part.001, ... of less than 60 MiB each. There, in a copy of this repository:

    cat OUT/part.* | tar x && python -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site python benchmarks/gpu.py --dry
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
MOST = 60  # MiB of a part, which must be less
OWN = "resnet-deploy"
NEEDS = {  # of each stage; TensorRT itself is no wheel on PyPI
    "driver": (f"{OWN}[rtx]", "pytest"),
    "onnxruntime": (f"{OWN}[export]", "onnxruntime-gpu", "cuda-bindings"),
    "pytorch": (f"{OWN}[export]",),
    "rtx": (f"{OWN}[rtx,export,cpu]",),
    "tests": (f"{OWN}[rtx,export,cpu]", "pytest"),
}
GLIBC = ("2_39", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17")


class Parts:
    """A stream of bytes in files of at most `size` bytes; written in order, `close` ends the last."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size, self.files = folder, size, list[Path]()
        self._left, self._file = 0, None

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            if self._left == 0:
                self.close()
                self.files.append(self.folder / f"part.{len(self.files):03}")
                self._file, self._left = self.files[-1].open("wb"), self.size
            piece, view = view[: self._left], view[self._left :]
            self._file.write(piece)
            self._left -= len(piece)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._left = None, 0


def pack(wheels: Sequence[Path], out: Path, mib: int) -> list[Path]:
    """Lay the wheels into parts; those of an earlier run go."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("part.*"):
        old.unlink()
    parts = Parts(out, mib * MIB)
    with tarfile.open(fileobj=parts, mode="w|") as archive:
        for wheel in sorted(wheels):
            archive.add(wheel, f"wheels/{wheel.name}")
    parts.close()
    return parts.files


def download(stages: Sequence[str], python: str, folder: Path) -> list[Path]:
    """The toolkit's own wheel, and those of all that the stages need."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (own,) = folder.glob("resnet_deploy-*.whl")
    asked = sorted({need.replace(OWN, str(own)) for stage in stages for need in NEEDS[stage]})
    platforms = [f"--platform=manylinux_{version}_x86_64" for version in GLIBC] + ["--platform=manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", f"--python-version={python}", *platforms]
    subprocess.run([*command, "-d", str(folder), "-c", str(ROOT / "constraints.txt"), *asked], check=True)
    return list(folder.glob("*.whl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the parts")
    parser.add_argument("--stages", default="driver,rtx", help=f"with commas, of {', '.join(NEEDS)}")
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="the other machine's")
    parser.add_argument("--mib", type=int, default=55, help=f"of a part, less than {MOST}")
    parser.add_argument("--without", default="", help="leave out wheels that begin so, such as torch,nvidia,triton")
    parser.add_argument("--wheels", type=Path, help="pack the wheels of this folder, and download nothing")
    options = parser.parse_args()
    stages = options.stages.split(",")
    if unknown := set(stages) - NEEDS.keys():
        parser.error(f"no wheels are known for {', '.join(sorted(unknown))}: there are {', '.join(NEEDS)}")
    if not 0 < options.mib < MOST:
        parser.error(f"--mib is more than 0 and less than {MOST}")
    with tempfile.TemporaryDirectory() as folder:
        wheels = options.wheels.glob("*.whl") if options.wheels else download(stages, options.python, Path(folder))
        there = tuple(filter(None, options.without.split(",")))
        found = sorted(wheel for wheel in wheels if not wheel.name.startswith(there or "/"))
        parts = pack(found, options.out, options.mib)
    size = sum(part.stat().st_size for part in parts)
    print(f"{len(found)} wheels, {size / MIB:.0f} MiB, in {len(parts)} parts of {options.out}")


if __name__ == "__main__":
    main()
