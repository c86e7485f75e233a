"""Draws docs/figures/pareto-light.svg and pareto-dark.svg and writes README's table, all from one results file.

    toolkit bench engines/built/fashion-resnet18-{fp32,fp16,int8} --seconds 60 --share benchmarks/results/gallery/NAME.json
    python docs/_site/figures.py benchmarks/results/gallery/NAME.json

A test repeats it from the file that README names, and compares.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from toolkit.harness.results import Results  # noqa: E402
from toolkit.report.summary import rows  # noqa: E402
from toolkit.report.svg import pareto_svg  # noqa: E402
from toolkit.report.table import COLUMNS, WIDE_ONLY, cells_of, spans_of  # noqa: E402

BLOCK = re.compile(r"(?<=<!-- demo: docs/_site/figures\.py writes this -->\n).*?(?=<!-- /demo -->)", re.S)
SHOWN = [index for index, column in enumerate(COLUMNS) if column not in WIDE_ONLY]


def block(results: Results, name: str) -> str:
    """README's words and table for the results in `name`, a path in the repository."""
    seconds = sum(m.duration_ns for m in results.measurements) / 1e9
    said = (
        f"The demo ends on this table, here on {results.environment.device}, batch 1, with 95 % intervals, from a longer run\n"
        f"than the demo's own ({seconds:.0f} s of calls). `toolkit report {name}` prints it again:"
    )
    heads = [COLUMNS[i] for i in SHOWN]
    lines = [said, "", row(heads), row(["---" if head in ("engine", "verdict") else "---:" for head in heads])]
    for summary in rows(results):
        cells, spans = cells_of(summary), spans_of(summary)
        first, *others = [f"{cells[i]} {spans[i]}".strip() for i in SHOWN]
        lines.append(row([first.replace("reference", "reference (PyTorch)"), *others]))
    told = "\n".join(lines)
    marks = [("∞", "too few calls to bound it from above"), ("\\*", "the timing was flagged: `toolkit report` says why")]
    notes = [f"{mark}: {meaning}" for mark, meaning in marks if mark.strip("\\") in told]
    return f"{told}\n" + (f"\n{'; '.join(notes)}.\n" if notes else "")


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(path: Path) -> None:
    results = Results.read(path)
    for name, dark in (("light", False), ("dark", True)):
        picture = ROOT / "docs" / "figures" / f"pareto-{name}.svg"
        picture.write_text(pareto_svg(results, dark=dark), encoding="utf-8")
        print(picture.relative_to(ROOT))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(BLOCK.sub(lambda _: block(results, str(path.resolve().relative_to(ROOT))), text), encoding="utf-8")
    print("README.md")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
