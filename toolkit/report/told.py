"""Told: what `toolkit bench --json` and `toolkit report --json` print. Stable; see docs/reference/json.md."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

from toolkit.harness import intervals
from toolkit.harness.results import Results
from toolkit.report.decision import decide
from toolkit.report.summary import EngineSummary, rows


def told(results: Results) -> dict[str, Any]:
    """The decision, an entry an engine, ratios between engines: figures and 95 % intervals (null: an end that nothing bounds)."""
    summary = rows(results)
    decision = decide(results, summary)
    return {
        "device": results.environment.device,
        "started": results.environment.started,
        "energy": results.environment.energy,
        "decision": None
        if decision is None
        else {"engine": decision.engine, "sentence": decision.sentence, "also": list(decision.also), "next": decision.next},
        "engines": [_engine(row) for row in summary],
        "ratios": ratios(summary),
        "notes": list(results.notes),
    }


def _engine(row: EngineSummary) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "name": row.name,
        "precision": row.precision,
        "target": row.target,
        "batch": row.latency.batch if row.latency else None,
        "clock": row.latency.clock if row.latency else None,
        "p50_ms": row.p50,
        "p99_ms": row.p99,
        "speedup": row.speedup,
        "images_per_second": row.throughput,
        "best_batch": row.best_batch,
        "intervals": {_KEYS[key]: _ends(ends) for key, ends in row.spans.items()},
        "top1": row.top1,
        "agreement": verdict.agreement if verdict else None,
        "verdict": verdict.word if verdict else None,
        "accepted": verdict.accepted if verdict else None,
        "state": verdict.state if verdict else None,
        "file_bytes": row.footprint.file if row.footprint else None,
        "folder_bytes": row.footprint.folder if row.footprint else None,
        "memory_bytes": row.footprint.memory if row.footprint else None,
        "images_per_joule": row.images_per_joule,
        "watts": row.watts,
        "trouble": list(row.trouble),
        "not_measured": row.absent or None,
    }


_KEYS = {"p50": "p50_ms", "p99": "p99_ms", "speedup": "speedup", "throughput": "images_per_second"}


def ratios(summary: list[EngineSummary]) -> list[dict[str, Any]]:
    """How many times as fast each engine is as each other, at p50, where both were measured on the same terms."""
    found = []
    for slow, fast in permutations([row for row in summary if row.latency is not None], 2):
        ratio = intervals.ratio(slow.latency, fast.latency) if slow.latency and fast.latency else None
        if ratio is not None:
            found.append({"engine": fast.name, "over": slow.name, "times": ratio.value, "interval": _ends(ratio[1:])})
    return found


def _ends(ends: tuple[float, ...]) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in ends]
