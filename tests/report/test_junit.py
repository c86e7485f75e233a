"""JUnit XML as a CI server reads it."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import msgspec

from toolkit.harness.results import Results
from toolkit.report.junit import junit


def test_counts_agree_with_the_cases(results: Results):
    suite = fromstring(junit(results).encode()).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert int(suite.get("tests", "")) == len(cases) == 3 + 4 + 1
    assert int(suite.get("errors", "")) == len(suite.findall("testcase/error")) == 1
    assert int(suite.get("failures", "")) == 0


def test_a_refused_verdict_is_a_failure_with_its_reason(results: Results):
    strict = tuple(msgspec.structs.replace(v, min_agreement=1.0) for v in results.verdicts)
    root = fromstring(junit(msgspec.structs.replace(results, verdicts=strict)).encode())
    (failure,) = root.findall(".//failure")
    assert "below 100.00%" in (failure.text or "")
    assert failure.get("type", "").endswith(": agreement")  # it said "same"


def test_names_and_texts_may_hold_anything(results: Results):
    odd = msgspec.structs.replace(results, failures={"a\x00\x1b]]>": "<&\x07"})
    cases = fromstring(junit(odd).encode()).findall(".//testcase")
    assert "a]]>" in [case.get("name") for case in cases]
