"""The fuzzer by night: `python -m tests.fuzz.nightly --mutants 10000 --first 0`. Exit code 1 where something was found.

Each reader works in a process of its own, so that a crash is a find as well. What is found is written to `corpus/`, under the
reader's name; the seed that made it is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import tempfile
from pathlib import Path

from tests.fuzz.bounds import fault
from tests.fuzz.readers import READERS, Reader, with_results

CORPUS = Path(__file__).parent / "corpus"
STEP = 2_000  # mutants of one process: to start one and import everything takes seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help=f"absent: all of {', '.join(READERS)}")
    parser.add_argument("--mutants", type=int, default=10_000, help="of each reader")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--results", type=Path, help="a file that `toolkit bench` wrote, to be mutated too")
    given = parser.parse_args()
    readers = with_results(given.results.read_bytes()) if given.results else READERS
    found = 0
    for name in given.readers or readers:
        wrong = hunt(name, readers[name], range(given.first, given.first + given.mutants))
        found += len(wrong)
        print(f"{name}: {given.mutants} mutants from seed {given.first}, {len(wrong)} found", flush=True)
        for seed, what in list(wrong.items())[:20]:
            print(f"  seed {seed}: {what}", flush=True)
    sys.exit(1 if found else 0)


def hunt(name: str, reader: Reader, seeds: range) -> dict[int, str]:
    """What is wrong, by seed; the first of each kind is kept in the corpus."""
    context = multiprocessing.get_context("spawn")
    whole, wrong, kinds = reader.whole(), dict[int, str](), set[str]()
    for start in range(seeds.start, seeds.stop, STEP):
        todo = range(start, min(start + STEP, seeds.stop))
        while todo:
            ours, theirs = context.Pipe()
            child = context.Process(target=_work, args=(name, whole, todo, theirs))
            child.start()
            theirs.close()
            todo = _collect(ours, todo, wrong)
            child.join()
    for seed, what in wrong.items():
        kind = what.partition(":")[0]
        if kind not in kinds:
            kinds.add(kind)
            file = CORPUS / f"{name.replace(' ', '-').replace(chr(39), '')}.{seed}"
            file.write_bytes(reader.change(whole[seed % len(whole)], seed))
    return wrong


def _collect(pipe: object, todo: range, wrong: dict[int, str]) -> range:
    """Take what the child says of each seed; the seeds that are left, should it have died of one."""
    for seed in todo:
        try:
            found = pipe.recv()  # type: ignore[attr-defined]
        except EOFError:
            wrong[seed] = "the process died"
            return range(seed + 1, todo.stop)
        if found:
            wrong[seed] = found
    return range(0)


def _work(name: str, whole: list[bytes], seeds: range, pipe: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reader = with_results(b"")[name]
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            pipe.send(fault(reader, reader.change(whole[seed % len(whole)], seed), Path(folder)))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
