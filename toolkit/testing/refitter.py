"""Refitting in the played TensorRT: what the real one takes, and what it refuses.

Which constants a real plan lists as exchangeable is the library's affair; here all are, but those that `library._baked` names.
The real reader passes over a constant that is not listed and keeps the old one in silence: here that is a HazardError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from toolkit.testing.builder import Fault
from toolkit.testing.host import HazardError
from toolkit.testing.played import ILogger, Network, Recorded, Severity


class Refitter(Recorded):
    def __init__(self, engine: Any, logger: ILogger) -> None:
        if not engine.refittable:
            logger.log(Severity.ERROR, "Error Code 3: API Usage Error (Parameter check failed, condition: e.isRefittable())")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.logger, self._engine = logger, engine
        self._set: set[str] = set()
        self._network: Network | None = None

    def get_all_weights(self) -> list[str]:
        return sorted(self._engine._network.weights.keys() - self._library._baked)

    def get_missing_weights(self) -> list[str]:
        return sorted(set(self.get_all_weights()) - self._set) if self._set else []

    def refit_cuda_engine(self) -> bool:
        if self._network is None or self.get_missing_weights():
            self.logger.log(Severity.ERROR, "Error Code 4: API Usage Error (not all weights that are needed were supplied)")
            return False
        self._engine._network = self._network._replace(stripped=False)
        return True


class OnnxParserRefitter(Recorded):
    def __init__(self, refitter: Any, logger: ILogger) -> None:
        self._refitter, self._faults = refitter, list[str]()
        self.num_errors = 0

    def get_error(self, index: int) -> Any:
        return self._library.ParserError(Fault(-1, "", "", self._faults[index]))

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        refitter, old = self._refitter, self._refitter._engine._network
        parsed = self._library._reader(model)
        listed = set(refitter.get_all_weights())
        given = {name: data for name, data in parsed.weights.items() if name in listed}
        wrong = [name for name, data in given.items() if len(data) != len(old.weights[name])]
        if len(given) < len(listed) or wrong:
            self._faults = [f"Only successfully refitted {len(given) - len(wrong)} weights out of {len(listed)}"]
            self.num_errors = 1
            return False
        kept = old.weights.keys() & parsed.weights.keys() - listed
        if stale := sorted(name for name in kept if parsed.weights[name] != old.weights[name]):
            raise HazardError(f"{stale[0]} is baked into the plan: the real library would keep the old one, and not say so")
        if old.identical and parsed.weights != old.weights:
            raise HazardError("a plan that was stripped without REFIT was given other weights than its own")
        refitter._set, refitter._network = set(given), old._replace(function=parsed.function, weights=parsed.weights)
        return True


class ISerializationConfig(Recorded):
    def __init__(self) -> None:
        self._flags: set[Any] = set()

    def set_flag(self, flag: Any) -> bool:
        self._flags.add(flag)
        return True

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags


def plan_of(head: bytes, weights: Mapping[str, bytes]) -> bytes:
    """A played plan's bytes: they hold its weights."""
    parts = (f"{name} {len(data)}\n".encode() + data for name, data in sorted(weights.items()))
    return b"played plan " + hashlib.sha256(head + b"".join(parts)).digest()


REFITTING = (Refitter, OnnxParserRefitter, ISerializationConfig)
