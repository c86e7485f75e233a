"""Draws docs/figures/pareto-light.svg and pareto-dark.svg from the results of a bench, such as the demo's.

make demo && python docs/_site/figures.py results.json
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from toolkit.harness.results import Results  # noqa: E402
from toolkit.report.svg import pareto_svg  # noqa: E402

results = Results.read(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "results.json"))
for name, dark in (("light", False), ("dark", True)):
    path = ROOT / "docs" / "figures" / f"pareto-{name}.svg"
    path.write_text(pareto_svg(results, dark=dark), encoding="utf-8")
    print(path.relative_to(ROOT))
