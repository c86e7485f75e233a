"""Refit: the engine of new weights, out of an engine of the same recipe whose graph differs in its constants alone.

Activations move with the weights, and so do the scales that INT8 has for both: ranges are measured again, and only what an
earlier build chose (method, equalization, how weights are rounded) is taken over. So a refit is judged like any other build; what
it spares is a plan's compilation, and the search for those settings.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import onnx_ir as ir

from toolkit.backends import backend
from toolkit.calibration.fingerprint import Fingerprint
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError
from toolkit.graph.select import Settings
from toolkit.recipe import Recipe
from toolkit.reference.normal import fit_normalization
from toolkit.types import Target

ANEW = "Build it without --refit"
SHOWN = 3


def taken_over(engine: Engine, recipe: Recipe, target: Target) -> Recipe:
    """`recipe` with what it leaves to measurement as the engine has it.

    Raises EngineError where the engine is of another target, or built with other options or for other pictures.
    """
    before, now = engine.recipe, fit_normalization(recipe)[0]
    different = [key for key in ("preprocess", "build") if _fixed(before, key, target) != _fixed(now, key, target)]
    if engine.manifest.to_target() != target:
        raise EngineError(f"{engine.name} is an engine for {engine.manifest.target}, not for {target}", remedy=ANEW)
    if different:
        tables = " and ".join(f"[{key}]" for key in different)
        raise EngineError(f"{recipe.name} and the recipe of {engine.name} differ in {tables}, not in weights alone", remedy=ANEW)
    settings = Settings(recipe.precision, recipe.calibration)
    old = {key: getattr(before.calibration if key == "method" else before.precision, key) for key in settings.unset}
    if "method" in old:  # which also chose a method for single tensors
        old["methods"] = {**before.precision.methods, **recipe.precision.methods}
    settings = settings.having(**{key: value for key, value in old.items() if value is not None})
    return msgspec.structs.replace(recipe, precision=settings.precision, calibration=settings.calibration)


def exchanged(engine: Engine, graph: ir.Model) -> frozenset[str]:
    """The constants in which the typed `graph` differs from the engine's. Raises EngineError, which names nodes, for any more."""
    old = engine.graph
    if Fingerprint.of(old).layers != Fingerprint.of(graph).layers:
        named = list(dict.fromkeys(_different(old, graph)))
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        where = f", at {', '.join(named[:SHOWN])}{more}" if named else ""
        what = f"the new weights make another graph than that of {engine.name}{where}: a refit exchanges constants only"
        raise EngineError(what, remedy=ANEW)
    before, after = _constants(old), _constants(graph)
    return frozenset(name for name, value in after.items() if before.get(name) != value)


def can_refit(target: Target) -> bool:
    """Whether the target's library compiles a plan, in which weights are exchanged; elsewhere a build writes its file again."""
    return hasattr(backend(target), "refit")


def told(engine: Engine, graph: ir.Model, changed: frozenset[str], target: Target) -> str:
    """A note for the manifest."""
    how = "in its plan, which was not compiled again" if can_refit(target) else "in a file that was written again"
    count = f"{len(changed)} of {len(graph.graph.initializers)} constants were exchanged"
    return f"refitted from {engine.name} ({engine.manifest.seal[:12]}): {count} {how}; ranges are those of the new weights"


def _fixed(recipe: Recipe, key: str, target: Target) -> object:
    """What of a table an engine cannot change afterwards."""
    if key == "preprocess":
        return recipe.preprocess
    if not can_refit(target):
        return None
    return msgspec.structs.replace(recipe.build, target="cpu", timing_cache=False)


def _constants(graph: ir.Model) -> dict[str, bytes]:
    tensors = ((name, value.const_value) for name, value in graph.graph.initializers.items())
    return {name: tensor.tobytes() for name, tensor in tensors if tensor is not None}


def _different(old: ir.Model, new: ir.Model) -> Iterator[str]:
    """Nodes that one of the graphs lacks, or that differ in operator or in the shapes of their constants."""
    one, other = _nodes(old), _nodes(new)
    yield from (name for name in (*one, *other) if one.get(name) != other.get(name))


def _nodes(graph: ir.Model) -> dict[str, tuple[object, ...]]:
    constants = graph.graph.initializers
    return {
        node.name or node.op_type: (
            node.op_type,
            *(value and value.name for value in node.inputs),
            *(str((value.dtype, value.shape)) for value in node.inputs if value is not None and value.name in constants),
        )
        for node in graph.graph
    }
