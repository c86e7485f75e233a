"""A limit or threshold that a page states is the one of the code."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from toolkit.calibration.histogram import SIZE
from toolkit.cli.recipe import tune
from toolkit.graph import fp8, select
from toolkit.harness import compare, latency, stability
from toolkit.recipe import Accept, Calibration
from toolkit.report import decision
from toolkit.why import remedies

DOCS = Path(__file__).parents[2] / "docs"
PLAN = latency.Sampling()
GRAPHS = inspect.signature(tune).parameters["limit"].default
SAID = [
    ("explanation/calibration.md", f"One pass, {SIZE * (4 + 8) / 1024:.0f} KiB per tensor"),  # uint32 and int64 counts
    ("explanation/calibration.md", f"better by {select.WORTH} dB and by {select.SURE} standard errors"),
    ("explanation/precision.md", f"It evaluates at most {GRAPHS} graphs"),
    ("how-to/int8-refused.md", f"It evaluates up to {GRAPHS} graphs"),
    ("explanation/tensorrt.md", f"GPUs from sm{fp8.FIRST_SM} on compute in it"),
    ("explanation/why.md", f"one that gains less than {remedies.WORTH} dB is listed as tried"),
    ("explanation/benchmarking.md", f"runs for a short turn ({1000 * PLAN.turn:.0f} ms, or one call"),
    ("explanation/benchmarking.md", f"narrower than {100 * PLAN.precision:.0f} % of it"),
    ("explanation/benchmarking.md", f"`--seconds` ({PLAN.seconds:.0f}, warm-up included"),
    ("explanation/benchmarking.md", f"of more than {100 * stability.DRIFT:.0f} %"),
    ("explanation/benchmarking.md", f"others used {100 * stability.OTHER_LOAD:.0f} % of the cores"),
    ("explanation/benchmarking.md", f"the hypervisor took {100 * stability.STEAL:.0f} %"),
    ("explanation/benchmarking.md", f"slower than OLD by more than {100 * compare.TOLERANCE:.0f} %?"),
    ("how-to/gate.md", f"slower than OLD by more than {100 * compare.TOLERANCE:.0f} %, or"),
    ("reference/report.md", f"to beat by {100 * (decision.WORTH - 1):.0f} % in p50"),
    ("reference/recipe.md", f"| `images` | `{Calibration().images}` | at most this many, the first ones"),
    ("reference/recipe.md", f"| `max_top1_drop` | `{Accept().max_top1_drop}` |"),
    ("reference/recipe.md", f"| `min_agreement` | `{Accept().min_agreement}` |"),
]


@pytest.mark.parametrize(("page", "text"), SAID)
def test_a_page_states_the_limits_of_the_code(page: str, text: str) -> None:
    assert text in " ".join((DOCS / page).read_text(encoding="utf-8").split())
