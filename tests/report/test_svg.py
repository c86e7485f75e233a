"""The chart as a file of its own: whole without the page, light and dark."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import msgspec
import pytest

from toolkit.errors import MeasurementError
from toolkit.report.svg import pareto_svg

NAME = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("dark", [False, True])
def test_an_image_of_its_own_has_every_engine_and_every_color_that_it_uses(results, dark):
    text = pareto_svg(results, dark=dark)
    root = ElementTree.fromstring(text)
    assert root.tag == f"{NAME}svg" and root.find(f"{NAME}title") is not None
    named = {title.text for title in root.iter(f"{NAME}title")}
    assert {measurement.engine for measurement in results.measurements} <= named
    used, given = set(re.findall(r"var\((--\w+)\)", text)), set(re.findall(r"(--\w+):", text))
    assert used - given == set()
    drawn = {name for element in root.iter() for name in (element.get("class") or "").split()}
    assert {"mark", "grid"} <= drawn
    assert all(f".{name}" in text for name in ("mark", "s1"))


def test_light_and_dark_differ_in_color_only(results):
    light, dark = pareto_svg(results), pareto_svg(results, dark=True)
    assert light != dark
    assert re.sub(r":root \{[^}]*\}", "", light) == re.sub(r":root \{[^}]*\}", "", dark)


def test_results_without_answers_are_an_error(results):
    bare = msgspec.structs.replace(results, measurements=())
    with pytest.raises(MeasurementError, match="toolkit bench"):
        pareto_svg(bare)
