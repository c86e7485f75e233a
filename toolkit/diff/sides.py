"""Sides: what the two arguments of a diff may be: an engine's folder, an ONNX file, a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir

from toolkit import pipeline
from toolkit.engine.engine import Engine
from toolkit.engine.judge import answering
from toolkit.engine.layout import SUFFIX
from toolkit.errors import EngineError, GraphError
from toolkit.graph.load.apart import read_apart
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.manifest import Manifest
from toolkit.recipe import Recipe
from toolkit.trip import Trip
from toolkit.types import Classifier, Stage, Target


class Side(NamedTuple):
    """A graph by itself has neither recipe nor target; `trip` is a recipe's."""

    name: str
    kind: str  # engine | graph | recipe
    graph: ir.Model
    target: str = ""
    recipe: Recipe | None = None
    engine: Engine | None = None
    trip: Trip | None = None
    broken: str = ""  # why a bare graph does not run

    @property
    def manifest(self) -> Manifest | None:
        return None if self.engine is None else self.engine.manifest

    @property
    def model(self) -> Manifest | None:
        """What says how its answers are to be read: the engine's manifest, or that of the recipe's reference."""
        return self.trip.source.reference.manifest if self.trip is not None else self.manifest


def open_side(path: Path, stage: Stage, like: Trip | None = None) -> Side:
    """Raises EngineError, GraphError, RecipeError; `like` is the trip of the other side, whose work is not done twice."""
    if path.is_dir() or path.suffix == SUFFIX:
        engine = Engine.open(path)
        return Side(engine.name, "engine", engine.graph, engine.manifest.target, engine.recipe, engine)
    if not path.exists():
        what = f"there is no {path}"
        raise EngineError(what, remedy="Name an engine's folder, an .onnx file or a recipe's .toml")
    if path.suffix == ".toml":
        recipe = Recipe.load(path)
        target = Target.parse_many(recipe.build.target)[0]
        trip = pipeline.prepare(recipe, stage, proof=False, like=like)
        return Side(recipe.name, "recipe", pipeline.typed(trip, target), str(target), recipe, trip=trip)
    if path.suffix == ".onnx":
        graph, broken = read_apart(path)
        return Side(path.stem, "graph", graph, broken=broken)
    raise EngineError(f"{path} is neither an engine, nor .onnx, nor .toml", remedy="Name one of these")


@contextmanager
def answers(side: Side) -> Iterator[tuple[Classifier, str]]:
    """What runs the side, and a note where that is not the engine itself."""
    if side.engine is not None:
        with answering(side.engine) as (runner, how):
            yield runner, "" if how == "measured" else f"{side.name} is {how}"
        return
    if side.broken:
        raise GraphError(side.broken)
    if side.target in ("", "cpu"):
        yield graph_runner(side.graph), ""
        return
    note = f"ONNX Runtime's CPU ran {side.name}, which is for {side.target}, rounded as that rounds"
    yield predicting_runner(side.graph, Target.parse(side.target)), note
