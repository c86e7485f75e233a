from __future__ import annotations

import io
from types import SimpleNamespace as Made

from rich.console import Console

from toolkit.report.tuning import tuning


def drawn(predicted: bool) -> str:
    p50 = (None, None) if predicted else (2.0, 1.0)
    verdict = Made(short="same", agreement=0.9951)
    fp32 = Made(name="fp32", snr=120.0, int8=0.0, time=2.0, p50_ms=p50[0], p99_ms=p50[0], searched=None, held_out=None)
    int8 = Made(name="int8", snr=38.5, int8=0.995, time=1.0, p50_ms=p50[1], p99_ms=p50[1], searched=None, held_out=verdict)
    calm = Made(unit="layer1", alone=50.0, left_out=40.0, share=0.25)
    touchy = Made(unit="layer2[0]", alone=30.0, left_out=44.0, share=0.75)
    result = Made(
        winner=int8,
        finalists=[fp32, int8],
        front=[int8, fp32],
        sensitivity=[calm, touchy],
        reasons=["so it is"],
        evaluations=17,
        predicted=predicted,
    )
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(tuning(result))
    return console.export_text()


def test_the_front_is_drawn_fastest_first() -> None:
    text = drawn(predicted=False)
    assert "17 graphs evaluated" in text
    assert text.index("int8") < text.index("fp32")
    assert "same, agrees 99.51%, held out" in text
    assert "1.000" in text
    assert "99.5%" in text
    assert [line.count("█") for line in text.splitlines() if "fp32" in line or "int8" in line] == [6, 12]


def test_the_most_sensitive_part_comes_first_and_brackets_survive() -> None:
    text = drawn(predicted=False)
    assert text.index("layer2[0]") < text.index("layer1 ")
    assert "- so it is" in text


def test_a_predicted_time_is_no_number_of_milliseconds() -> None:
    text = drawn(predicted=True)
    assert "time, predicted" in text
    assert "p50" not in text
    assert "2.00x" in text
