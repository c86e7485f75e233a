"""Which engine to ship: the simplest that no other is shown to beat; refused engines never."""

from __future__ import annotations

import msgspec
import numpy as np

from tests.report.conftest import measure
from toolkit.harness.footprint import Footprint
from toolkit.harness.results import Results
from toolkit.report.decision import Decision, decide
from toolkit.report.summary import rows
from toolkit.report.table import cells_of, markdown


def timed(results: Results, **ms: float) -> Results:
    """The results with engines that take so many milliseconds an image; verdicts by the engines' own names."""
    random = np.random.default_rng(3)
    precisions = {name: name if name in ("fp32", "fp16", "int8") else "fp32" for name in ms}
    measured = tuple(
        msgspec.structs.replace(measure(name, precisions[name], ms[name], batch, random), flags=(), interleaved_with=tuple(ms))
        for name in ms
        for batch in (1, 8)
    )
    verdicts = [v for v in results.verdicts if v.engine == "fp32"]
    made = tuple(msgspec.structs.replace(verdicts[0], engine=name) for name in ms if name != "reference")
    return msgspec.structs.replace(results, measurements=measured, verdicts=made, failures={}, layers=(), answers=())


def decided(results: Results) -> Decision:
    found = decide(results, rows(results))
    assert found is not None
    return found


def test_int8_that_is_hardly_faster_buys_nothing(results: Results) -> None:
    found = decided(timed(results, reference=4.5, fp32=0.304, int8=0.303))
    assert found.engine == "fp32"
    assert found.sentence.startswith("Ship fp32: p50 0.31")
    assert "int8 at 0.31" in found.sentence
    assert "buys nothing over it (1.01x [" in found.sentence


def test_int8_that_is_faster_is_shipped_and_says_against_what(results: Results) -> None:
    found = decided(timed(results, reference=4.5, fp32=0.3, fp16=0.31, int8=0.12))
    assert found.engine == "int8"
    assert "2.5" in found.sentence
    assert "as fast as fp32" in found.sentence
    assert "reference" not in found.sentence


def test_a_gain_below_three_per_cent_is_no_reason(results: Results) -> None:
    found = decided(timed(results, reference=4.5, fp32=0.3, int8=0.2955))
    assert found.engine == "fp32"
    assert "too little to give up precision for" in found.sentence


def test_sizes_and_larger_batches_are_weighed_too(results: Results) -> None:
    made = timed(results, reference=4.5, fp32=0.3, int8=0.3)
    sizes = {"fp32": Footprint(file=2_800_000, folder=3_000_000), "int8": Footprint(file=700_000, folder=900_000)}
    quick = (*made.measurements[:-1], measure("int8", "int8", 0.15, 8, np.random.default_rng(4)))
    also = " ".join(decided(msgspec.structs.replace(made, footprints=sizes, measurements=quick)).also)
    assert "The file of int8 is 4.00x smaller (700 kB beside 2.8 MB)." in also
    assert "At batch 8 int8 answers 2.0" in also


def test_a_refused_engine_is_not_shipped_however_fast(results: Results) -> None:
    made = timed(results, reference=4.5, fp32=0.3, int8=0.1)
    refused = tuple(
        msgspec.structs.replace(v, agreement=0.5, min_agreement=0.9) if v.engine == "int8" else v for v in made.verdicts
    )
    assert decided(msgspec.structs.replace(made, verdicts=refused)).engine == "fp32"
    none = decided(msgspec.structs.replace(made, verdicts=refused[-1:]))
    assert (none.engine, none.next) == (None, "toolkit why int8")
    assert none.sentence == "Ship none: int8 is refused."


def test_a_faster_engine_that_may_not_be_shipped_is_named_with_the_reason(results: Results) -> None:
    made = timed(results, reference=4.5, fp32=0.3, fp16=0.15, int8=0.1, slow=0.6)
    refused, few = {"agreement": 0.5, "min_agreement": 0.9}, {"agreement": 0.75, "min_agreement": 0.8, "images": 4}
    changed = {"int8": refused, "slow": refused, "fp16": {**few, "disagreements": ()}}
    verdicts = tuple(msgspec.structs.replace(v, **changed.get(v.engine, {})) for v in made.verdicts)
    found = decided(msgspec.structs.replace(made, verdicts=verdicts))
    assert found.engine == "fp32"
    quick, fastest = (line for line in found.also if " but " in line)
    assert quick.startswith("fp16 is ") and "as fast, but 4 images are too few to decide on it" in quick
    assert fastest.startswith("int8 is ") and fastest.endswith("as fast, but it is refused: toolkit why ENGINE.")
    assert not any("slow" in line for line in found.also), "what is slower and refused weighs nothing"
    unjudged = tuple(v for v in verdicts if v.engine != "int8")
    assert "but its accuracy was not compared" in decided(msgspec.structs.replace(made, verdicts=unjudged)).also[-1]


def test_unsteady_timings_and_missing_verdicts_are_said(results: Results) -> None:
    made = msgspec.structs.replace(timed(results, reference=4.5, fp32=0.3, fp16=0.2), verdicts=())
    random = np.random.default_rng(0)
    flagged = msgspec.structs.replace(made, measurements=(*made.measurements[:-2], measure("fp16", "fp16", 0.2, 1, random)))
    also = decided(flagged).also
    assert any("Accuracy was not compared" in line for line in also)
    assert any("unsteady" in line for line in also)


def test_a_reference_that_was_not_measured_has_no_star(results: Results) -> None:
    made = timed(results, reference=4.5, fp32=0.3)
    left = tuple(m for m in made.measurements if m.engine != "reference")
    absent = msgspec.structs.replace(made, measurements=left, failures={"reference": "not measured: it is not on this machine"})
    reference = next(row for row in rows(absent) if row.name == "reference")
    assert cells_of(reference)[0] == "reference"
    assert "reference: not measured: it is not on this machine" in markdown(absent)
    assert "unsteady" not in markdown(absent)
    assert decide(absent, rows(absent)) is not None


def test_too_few_rounds_decide_nothing(results: Results) -> None:
    made = timed(results, reference=4.5, fp32=0.3, int8=0.1)
    short = tuple(msgspec.structs.replace(m, blocks=m.blocks[:4]) for m in made.measurements)
    found = decided(msgspec.structs.replace(made, measurements=short))
    assert found.engine is None
    assert found.sentence.startswith("Not decided yet: int8 looks 2.9")
    assert "ms beside" in found.sentence and found.sentence.endswith("but too few rounds were measured to be sure.")
    assert found.also == ("Both keep the accuracy budget.",)
    assert found.next.endswith("--seconds 60")


def test_a_wide_interval_is_not_called_nothing(results: Results) -> None:
    made = timed(results, reference=4.5, fp32=0.3, int8=0.2)
    wild = []
    for m in made.measurements:
        factors = (0.3, 3.0) if m.engine == "int8" else (1.0, 1.0)
        times = [tuple(int(s * factors[i % 2]) for s in b.samples_ns) for i, b in enumerate(m.blocks)]
        blocks = tuple(msgspec.structs.replace(b, samples_ns=t) for b, t in zip(m.blocks, times, strict=True))
        wild.append(msgspec.structs.replace(m, blocks=blocks))
    found = decided(msgspec.structs.replace(made, measurements=tuple(wild)))
    assert "is not shown to be faster" in found.sentence
    assert "buys nothing" not in found.sentence


def test_nothing_timed_is_no_decision(results: Results) -> None:
    bare = Results(environment=results.environment)
    assert decide(bare, rows(bare)) is None
