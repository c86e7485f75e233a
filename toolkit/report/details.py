"""Details: where the time goes, what speaks against the numbers, the machine, the engines' identity cards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from toolkit.harness.layers import LayerTimes
from toolkit.harness.measurement import Flag, Measurement
from toolkit.harness.results import Results
from toolkit.report.grid import bar, grid
from toolkit.report.markup import Child, tag
from toolkit.report.network import Box, network
from toolkit.report.summary import EngineSummary

SLOWEST = 12  # layers shown for each engine


Noise = Mapping[str, Mapping[str, float]]  # engine -> layer -> its share of the noise in the logits


def layers(results: Results, noise: Noise) -> list[Element]:
    """For each engine that has a profile: the network with its time, its time by operator, and its slowest layers."""
    if not results.layers:
        return [tag("p", "The time of each layer was not measured.", class_="absent")]
    return [part for one in results.layers for part in _profile(one, noise.get(one.engine, {}))]


def _network(one: LayerTimes, noise: Mapping[str, float]) -> list[Element]:
    """The picture, and its numbers as a table: every layer of the original network."""
    if not one.network:
        return []
    times = one.by_layer()
    boxes, body = [], list[list[Child]]()
    for layer in one.network:
        share, lost = times.get(layer.name, 0.0) / (one.total or 1.0), noise.get(layer.name)
        said = f", {lost:.1%} of the noise" if lost is not None else ""
        title = f"{layer.name} ({layer.kind}, {layer.precision}): {share:.1%} of the time{said}"
        boxes.append(Box(name=layer.name, title=title, reads=layer.reads, noise=lost, time=share, precision=layer.precision))
        row: list[Child] = [layer.name, layer.kind, layer.precision, bar(share), f"{share:.1%}"]
        body.append([*row, "-" if lost is None else f"{lost:.1%}"])
    about = "The strip at the foot of a box: the layer's part of the time; a stronger color is more. Dotted: floating point."
    about += (
        " The box itself: its part of the noise."
        if noise
        else " For the noise of each: toolkit why ENGINE --json, and report --why."
    )
    table = grid(["layer", "operator", "precision", "share", "of the time", "of the noise"], body, text=(0, 1, 2, 3))
    rest = one.total - sum(times.values())
    note = f"{rest / (one.total or 1.0):.1%} of the time goes into nodes that belong to no layer: conversions between them."
    named = tag(
        "details", tag("summary", f"All {len(body)} layers by their original names"), table, tag("p", note, class_="note")
    )
    return [network(boxes, about, f"{one.engine}."), named]


def _profile(one: LayerTimes, noise: Mapping[str, float]) -> list[Element]:
    head = tag("h3", f"{one.engine}, batch {one.batch}")
    kinds: list[list[Child]] = [
        [kind, bar(ms / one.total), f"{ms / one.total:.1%}", f"{ms:.3f}", str(n)] for kind, n, ms in one.by_kind() if ms > 0
    ]
    slow: list[list[Child]] = [
        [x.of or x.name, x.name, x.kind, bar(x.milliseconds / one.total), f"{x.milliseconds / one.total:.1%}"]
        for x in one.slowest(SLOWEST)
    ]
    note = f"Median of {one.runs} runs under the backend's profiler, which slows small layers: read the shares."
    operators = grid(["operator", "share", "of the time", "ms", "layers"], kinds, text=(0, 1), note=note)
    table = grid(["layer", "as it was compiled", "operator", "share", "of the time"], slow, text=(0, 1, 2, 3))
    slowest = tag("details", tag("summary", f"The {len(slow)} slowest of {len(one.layers)} compiled nodes"), table)
    return [head, *_network(one, noise), operators, slowest]


def trust(results: Results, summary: Sequence[EngineSummary]) -> list[Element]:
    """Every flag with its remedy; where there is none, the page says so."""
    flagged = [(m, flag) for m in results.measurements for flag in m.flags]
    body = [*_alike(flagged, len(results.measurements))]
    ended = [[m.engine, f"{m.scenario}, batch {m.batch}, {m.clock}", m.failure, ""] for m in results.measurements if m.failure]
    order = {tuple(m.interleaved_with) for m in results.measurements if m.interleaved_with}
    how = "Engines ran in shuffled, interleaved rounds." if order else "Engines ran one after another."
    parts = [tag("p", f"{how} Raw samples are in the results file; everything here is derived from them.")]
    if not body and not ended:
        return [
            *parts,
            tag("p", "No problem was found with these numbers: no drift, no load from other programs, no throttling."),
        ]
    return [*parts, grid(["engine", "measurement", "what was seen", "what to do"], body + ended, text=(0, 1, 2, 3))]


def _alike(flagged: Sequence[tuple[Measurement, Flag]], measurements: int) -> Iterator[list[str]]:
    """A row a flag; what several measurements share, such as the load beside them, once."""
    groups: dict[Flag, list[Measurement]] = {}
    for m, flag in flagged:
        groups.setdefault(flag, []).append(m)
    for flag, found in groups.items():
        names = list(dict.fromkeys(m.engine for m in found))
        if len(found) > 2:
            every = "all" if len(found) == measurements else str(len(found))
            yield [", ".join(names), f"{every} of {measurements} measurements", flag.text, flag.remedy]
        else:
            yield from ([m.engine, f"{m.scenario}, batch {m.batch}, {m.clock}", flag.text, flag.remedy] for m in found)


def environment(results: Results) -> list[Element]:
    """The machine, in words, and the versions of what ran."""
    e = results.environment
    facts: list[tuple[str, Child]] = [
        ("CPU", f"{e.cpu}, {e.cores} cores, {len(e.affinity)} of them usable" + (", a virtual machine" if e.virtual else "")),
        ("Instructions", " ".join(f for f in e.cpu_flags if f.startswith(("avx", "amx", "asimd", "sve", "fma"))) or "-"),
        ("Memory", f"{e.memory_mib:,} MiB"),
        ("GPU", ", ".join(f"{g.name}, driver {g.driver}, {g.memory_mib:,} MiB" for g in e.gpus) or e.gpu_note or "none"),
        ("System", f"{e.system}, Python {e.python}"),
        ("Energy", e.energy or "not told"),
        ("Governor", e.governor or "not told"),
        ("Thread settings", ", ".join(f"{k}={v}" for k, v in sorted(e.thread_settings.items())) or "none"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in sorted(e.versions.items()))),
        ("Commit", (e.commit or "not in a repository") + (", with changes" if e.dirty else "")),
    ]
    return [_facts(facts)]


def manifests(results: Results) -> list[Element]:
    """An engine a block that opens: what it was made of, and the whole manifest."""
    if not results.manifests:
        return [tag("p", "The results hold no manifests.", class_="absent")]
    return [_manifest(name, manifest) for name, manifest in sorted(results.manifests.items())]


def _manifest(name: str, manifest: dict[str, Any]) -> Element:
    notes = [tag("li", str(text)) for text in manifest.get("notes") or ()]
    facts: list[tuple[str, Child]] = [
        ("Compiled for", str(manifest.get("device") or manifest.get("target") or "-")),
        ("Precision", str(manifest.get("precision", "-"))),
        ("By", ", ".join(f"{k} {v}" for k, v in sorted((manifest.get("versions") or {}).items())) or "-"),
        ("SHA-256", tag("code", str((manifest.get("hashes") or {}).get("file", "-")))),
    ]
    whole = json.dumps({k: v for k, v in manifest.items() if k != "classes"}, indent=1, sort_keys=True)
    short = tag("div", _facts(facts), tag("ul", notes) if notes else None)
    return tag("div", tag("h3", name), short, tag("details", tag("summary", "Manifest"), tag("pre", whole, tabindex="0")))


def _facts(facts: Sequence[tuple[str, Child]]) -> Element:
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts], class_="facts")
