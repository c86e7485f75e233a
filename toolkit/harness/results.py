"""Results: the file that a bench leaves. Measurements, verdicts, and the machine they were taken on; versioned JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from toolkit.disk.files import decode_json, read_regular, write_atomically
from toolkit.errors import MeasurementError
from toolkit.harness.answers import Answers
from toolkit.harness.conditions import Moment
from toolkit.harness.environment import Environment
from toolkit.harness.footprint import Footprint
from toolkit.harness.layers import LayerTimes
from toolkit.harness.measurement import Measurement
from toolkit.harness.roofline import Peaks, Work
from toolkit.harness.verdict import Verdict
from toolkit.harness.yardstick import YardstickCard
from toolkit.types import Frozen

ABSENT = "not measured"  # how the reason begins where something was not there to be measured; any other reason is a failure
VERSION = 1


class CardSettings(msgspec.Struct):
    """Of a manifest's settings."""

    threads: int = 1


class Card(msgspec.Struct):
    """The types of what the reports read of a manifest, whatever version of the toolkit wrote it."""

    name: str = ""
    target: str = ""
    device: str = ""
    precision: str = ""
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] | None = ()
    versions: dict[str, str] | None = None
    hashes: dict[str, str] | None = None
    settings: CardSettings | None = None
    recipe: dict[str, Any] | None = None


class Results(Frozen, frozen=True):
    """One run of a bench."""

    environment: Environment
    measurements: tuple[Measurement, ...] = ()
    answers: tuple[Answers, ...] = ()  # raw: what each engine said to each labeled image
    verdicts: tuple[Verdict, ...] = ()
    moments: tuple[Moment, ...] = ()  # the state of the machine through the run
    yardstick: YardstickCard | None = None
    manifests: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)  # engine name -> its manifest
    peaks: Peaks | None = None  # what this machine can do at most
    work: dict[str, Work] = msgspec.field(default_factory=dict)  # engine name -> what it must do
    layers: tuple[LayerTimes, ...] = ()  # where the time goes, for backends that tell
    footprints: dict[str, Footprint] = msgspec.field(default_factory=dict)  # engine name -> what it takes on disk and in memory
    ranges: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)  # engine name -> its ranges.json
    failures: dict[str, str] = msgspec.field(default_factory=dict)  # engine name -> why it has no (more) numbers
    notes: tuple[str, ...] = ()  # what was assumed of the images' labels, why there is no accuracy, whose work cannot be told
    version: int = VERSION

    @classmethod
    def read(cls, path: str | Path) -> Results:
        """Raises MeasurementError: no such file, cut short, not ours, or of another version."""
        path = Path(path)
        again = "Measure again: toolkit bench ENGINE... -o results.json"
        try:
            raw = decode_json(read_regular(path))
        except FileNotFoundError:
            raise MeasurementError(f"there is no results file {path}", remedy=again) from None
        except OSError as error:
            raise MeasurementError(f"{path} cannot be read: {error}", remedy=again) from error
        except ValueError as error:
            raise MeasurementError(f"{path} is not a complete JSON file, it may be cut short: {error}", remedy=again) from error
        if not isinstance(raw, dict) or "measurements" not in raw:
            raise MeasurementError(f"{path} does not hold results of a bench", remedy=again)
        if raw.get("version") != VERSION:
            found = raw.get("version")
            raise MeasurementError(f"{path} has format version {found!r}, this toolkit reads {VERSION}", remedy=again)
        try:
            results = msgspec.convert(raw, cls)
            for manifest in results.manifests.values():
                msgspec.convert(manifest, Card)
            return results
        except msgspec.ValidationError as error:
            raise MeasurementError(f"{path} is damaged: {error}", remedy=again) from error

    def write(self, path: str | Path) -> None:
        """Atomic. Raises MeasurementError where the folder cannot be written."""
        try:
            write_atomically(Path(path), msgspec.json.encode(self, order="sorted") + b"\n")
        except OSError as error:
            raise MeasurementError(f"cannot write {path}: {error}", remedy="Choose another file with -o") from error

    def of(self, engine: str) -> tuple[Measurement, ...]:
        return tuple(m for m in self.measurements if m.engine == engine)

    @property
    def engines(self) -> tuple[str, ...]:
        """Names in the order measured."""
        names = [m.engine for m in self.measurements] + [a.engine for a in self.answers] + list(self.failures)
        return tuple(dict.fromkeys(names))

    @property
    def broken(self) -> dict[str, str]:
        """Of the failures, those of engines that were there and could not be measured or judged."""
        return {name: why for name, why in self.failures.items() if not why.startswith(ABSENT)}
