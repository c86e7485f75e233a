"""Mutants of every kind of file that may come from outside: each is answered or refused, in time and in memory.

500 here, from fixed seeds; `python -m tests.fuzz.nightly` runs as many as are asked for. What was once found lies in `corpus/`.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from tests.fuzz.bounds import fault
from tests.fuzz.readers import READERS, Reader, with_results
from tests.report.conftest import results  # noqa: F401
from toolkit.harness.results import Results

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
MANY = {"a stranger's engine": 80, "ONNX file": 12, "results": 20, "recipe": 60, "manifest": 60}  # each of the others: 40
pytestmark = pytest.mark.skipif(os.name == "nt", reason="its bounds are other ones")


@pytest.mark.parametrize("name", READERS)
def test_whole_files_are_read_and_mutants_answered_or_refused(tmp_path: Path, name: str) -> None:
    _try(READERS[name], MANY.get(name, 40), tmp_path)


def test_results_of_a_bench(tmp_path: Path, results: Results) -> None:  # noqa: F811
    _try(with_results(msgspec.json.encode(results))["results"], MANY["results"], tmp_path)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_once_found(path: Path, tmp_path: Path) -> None:
    """A file is called READER.NUMBER, with blanks as dashes."""
    names = {name.replace(" ", "-").replace("'", ""): name for name in with_results(b"")}
    reader = with_results(b"")[names[path.name.partition(".")[0]]]
    assert fault(reader, path.read_bytes(), tmp_path) is None


def _try(reader: Reader, count: int, folder: Path) -> None:
    whole = reader.whole()
    for data in whole:  # else all mutants might be refused for what is wrong with the whole
        path = folder / f"whole{reader.suffix}"
        path.write_bytes(data)
        reader.read(path)
    wrong = {}
    for seed in range(count):
        found = fault(reader, reader.change(whole[seed % len(whole)], seed), folder)
        if found:
            wrong[seed] = found
    assert wrong == {}
