"""A folder of any size, answered in the memory of a few pictures: threads decode the next ones while the engine works.

    python examples/folder.py engines/built/fashion-resnet18-int8 photos/ > answers.csv

A file that cannot be read is named, and costs no other its answer.
"""

import csv
import os
import sys
import time
from collections.abc import Iterator
from itertools import tee

import toolkit

ENDS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def pictures(folder: str) -> Iterator[str]:
    """Paths one after another: the list of them is never held whole."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(where, name) for name in sorted(names) if name.lower().endswith(ENDS))


def main(engine: str, folder: str) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(("file", "label", "probability"))
    start, done, bad = time.perf_counter(), 0, 0
    named, read = tee(pictures(folder))  # `read` is ahead of `named` by no more than the pictures that are being decoded
    with toolkit.load(engine) as runner:
        for path, answer in zip(named, runner.answers(read, top=1), strict=True):
            done += 1
            if isinstance(answer, toolkit.ToolkitError):
                bad += 1
                print(answer, file=sys.stderr)
            else:
                writer.writerow((path, answer[0].label, f"{answer[0].probability:.4f}"))
    rate = done / (time.perf_counter() - start)
    print(f"{done - bad} pictures answered, {bad} could not be read; {rate:.0f} a second", file=sys.stderr)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
