"""Share: results as a file to share: raw samples and versions stay, what names a person or a place goes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from toolkit.errors import MeasurementError
from toolkit.harness.results import Results

KEEP = ("name", "target", "device", "precision", "settings", "versions", "notes", "inputs", "outputs", "profiles", "outputs_are")
SETTINGS = ("OMP_", "OPENBLAS_", "MKL_", "KMP_", "GOMP_", "CUDA_")  # of threads and devices, no paths
_PLACE = re.compile(r"(?:[A-Za-z]:)?(?:[\\/](?:[^\s\\/:'\"]+))+[\\/]?|~[\w./-]+|(?:(?<![\w.+-])[\w.+-]+|[\w.+-]{1,64})@[\w.-]+")
HIDDEN = "PATH"
NO_IMAGES: dict[str, Any] = {"disagreements": (), "margins": (), "changes": (), "worst_image": 0, "lowest_label": None}


def shared(results: Results, names: Sequence[str] = ()) -> Results:
    """The same measurements without answers, layers' ranges, classes, recipes, paths, commit and kernel build.

    Answers say what was in somebody's images, so that a verdict stays with its counts alone. Raises MeasurementError where
    nothing was timed.
    """
    if not any(m.blocks for m in results.measurements):
        raise MeasurementError("there is no timing in these results to share", remedy="Measure first: toolkit bench ENGINE...")
    told, names = results.environment, [name for name in names if len(name) > 2 and name not in ("localhost", "root")]
    environment = msgspec.structs.replace(
        told,
        system=_system(told.system),
        thread_settings={k: v for k, v in told.thread_settings.items() if k.startswith(SETTINGS) and "/" not in v},
        commit=None,
        dirty=None,
        gpu_note=hidden(told.gpu_note),
        energy=hidden(told.energy),
    )
    made = msgspec.structs.replace(
        results,
        environment=environment,
        measurements=tuple(msgspec.convert(_scrub(msgspec.to_builtins(m)), type(m)) for m in results.measurements),
        answers=(),
        verdicts=tuple(msgspec.structs.replace(v, **NO_IMAGES) for v in results.verdicts),
        manifests={name: _card(manifest) for name, manifest in results.manifests.items()},
        ranges={},
        failures={name: hidden(why) for name, why in results.failures.items()},
        notes=(),
    )
    return _without(made, names) if names else made


def _without(results: Results, names: Sequence[str]) -> Results:
    """No text in it has any of the words `names`: of this machine, and of who is logged in."""
    word = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, names))})(?![\w-])", re.IGNORECASE)
    return msgspec.json.decode(word.sub(HIDDEN, msgspec.json.encode(results).decode()), type=Results)


def _card(manifest: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _scrub({key: manifest[key] for key in KEEP if key in manifest})
    hashes = manifest.get("hashes")
    if isinstance(hashes, Mapping) and "file" in hashes:
        found["hashes"] = {"file": hashes["file"]}  # so that two files of one engine can be told to be that
    return found


def _scrub(value: Any) -> Any:
    """Every text in it without paths and addresses."""
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, Mapping):
        return {key: _scrub(item) for key, item in value.items()}
    return [_scrub(item) for item in value] if isinstance(value, (list, tuple)) else value


def hidden(text: str) -> str:
    """The text with each path and address as PATH; a unit such as img/s and a name such as int8/fp16 stay."""
    return _PLACE.sub(lambda found: HIDDEN if _is_place(found[0], text, found.start()) else found[0], text)


def _is_place(found: str, text: str, start: int) -> bool:
    before = text[start - 1] if start else " "
    if found.startswith(("/sys/", "/proc/")):
        return False  # the same on every machine
    return (
        "@" in found or found[0] == "~" or not (before.isalnum() or before in "._-") or re.match(r"[A-Za-z]:", found) is not None
    )


def _system(system: str) -> str:
    """Linux 6.1.0-13-cloud x86_64 -> Linux 6.1 x86_64: a kernel's build tells whose it is."""
    return re.sub(r"(\d+\.\d+)\S*", r"\1", system)
