"""Images a second of a Ray job with one and with two actors, beside a plain loop. One command: python benchmarks/ray_scaling.py

Each rate is a slope, (more - fewer images) over (longer - shorter time), so that Ray's start, the actors' and the last file's
write cancel; rounds are interleaved, and every time is kept raw in benchmarks/results/ray_scaling.json. Needs the ray extra.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import toolkit
import toolkit.ray
from toolkit.disk.files import write_atomically
from toolkit.harness.environment import read_environment

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "ray_scaling.json"


def pictures(folder: Path, count: int) -> None:
    """JPEG files of 256 x 256 pixels: smooth, so that decoding takes what it takes for photographs."""
    generator = np.random.default_rng(0)
    for i in range(count):
        coarse = generator.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{i:06}.jpg", quality=90)


def loop(files: Path, engine: Path) -> float:
    begin = time.perf_counter()
    with toolkit.load(engine) as runner:
        for _ in runner.answers(iter(sorted(files.iterdir()))):
            pass
    return time.perf_counter() - begin


def job(files: Path, engine: Path, actors: int) -> float:
    with tempfile.TemporaryDirectory() as out:
        return toolkit.ray.classify(files, engine, out, actors=actors, cpus=1).seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, default=ROOT / "engines" / "built" / "fashion-resnet18-int8")
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=9000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folders = {count: Path(work) / str(count) for count in (options.few, options.many)}
        for count, folder in folders.items():
            folder.mkdir()
            pictures(folder, count)
        for turn in range(options.rounds):
            for count, folder in folders.items():
                for name in np.random.default_rng(turn).permutation(["loop", "1 actor", "2 actors"]):
                    seconds = loop(folder, options.engine) if name == "loop" else job(folder, options.engine, int(name[0]))
                    rows.append({"round": turn, "what": str(name), "images": count, "seconds": seconds})
    written = {"environment": msgspec.to_builtins(read_environment()), "engine": options.engine.name, "rows": rows}
    write_atomically(options.output, json.dumps(written, indent=1).encode() + b"\n")
    show(rows, options.few, options.many)


def show(rows: list[dict[str, object]], few: int, many: int) -> None:
    table = Table("", "images/s", "least to most", box=None)
    medians = {}
    for name in ("loop", "1 actor", "2 actors"):
        times = {(r["round"], r["images"]): float(str(r["seconds"])) for r in rows if r["what"] == name}
        rates = [(many - few) / (times[turn, many] - times[turn, few]) for turn, count in times if count == few]
        medians[name] = float(np.median(rates))
        table.add_row(name, f"{medians[name]:,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}")
    Console().print(table)
    over_one, over_loop = medians["2 actors"] / medians["1 actor"], medians["1 actor"] / medians["loop"]
    print(f"two actors over one: {over_one:.2f}x; one actor over the loop: {over_loop:.2f}x")


if __name__ == "__main__":
    main()
