"""JUnit: verdicts as test cases, in the XML that every CI server reads."""

from __future__ import annotations

from xml.etree.ElementTree import Element, indent, tostring

from toolkit.harness.results import Results
from toolkit.report.markup import tag
from toolkit.report.summary import EngineSummary, rows


def junit(results: Results) -> str:
    """JUnit XML: a case an engine for accuracy (one that is not accepted fails) and one for its run (a failure is an error).

    Unsteady timing is noted, and fails nothing.
    """
    cases = [case for row in rows(results) for case in _cases(row, results)]
    failed = sum(case.find("failure") is not None for case in cases)
    errors = sum(case.find("error") is not None for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": str(errors)}
    name = f"toolkit on {results.environment.device}"
    suite = tag("testsuite", cases, name=name, timestamp=results.environment.started[:19], skipped="0", **counts)
    root = tag("testsuites", suite, name="toolkit", **counts)
    indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + _legal(tostring(root, encoding="unicode")) + "\n"


def _cases(row: EngineSummary, results: Results) -> list[Element]:
    cases = []
    if row.verdict is not None:
        text = row.verdict.text
        failure = None if row.verdict.accepted else tag("failure", text, message=text, type=row.verdict.short)
        cases.append(tag("testcase", failure, tag("system-out", text), classname="accuracy", name=row.name))
    measured = results.of(row.name)
    why = results.failures.get(row.name) or next((m.failure for m in measured if m.failure), None)
    if measured or why:
        seconds = sum(m.duration_ns for m in measured) * 1e-9
        error = tag("error", why, message=why) if why else None
        notes = tag("system-out", "\n".join(row.trouble)) if row.trouble else None
        cases.append(tag("testcase", error, notes, classname="bench", name=row.name, time=f"{seconds:.3f}"))
    return cases


def _legal(xml: str) -> str:
    """Without the control characters that XML cannot hold in any form."""
    return "".join(c for c in xml if c in "\t\n\r" or ord(c) >= 32)
