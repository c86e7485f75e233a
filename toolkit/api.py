"""A page of Python for notebooks: build, export, judge, bench and tune, eager, with objects in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.decoding.result import Parity
from toolkit.disk.files import require_place
from toolkit.engine.engine import Engine
from toolkit.engine.judge import Judgement
from toolkit.errors import RecipeError, extras, named_options
from toolkit.harness.measurement import Scenario
from toolkit.harness.results import Results
from toolkit.harness.run import plan_of
from toolkit.recipe import Recipe
from toolkit.recipe.modules import is_module
from toolkit.types import Stage, quiet

if TYPE_CHECKING:
    from toolkit.tuning.result import TuneResult  # its room needs onnx-ir; `judge` and `bench` do not

OUT = Path("engines/built")
PathLike = str | Path


@extras()
def build(
    wanted: Any,
    *,
    targets: str | Sequence[str] | None = None,
    out: PathLike = OUT,
    proof: bool = True,
    refit: Engine | PathLike | None = None,
    stage: Stage = quiet,
    **options: Any,
) -> list[Engine]:
    """Build an engine for each recipe and target, and open them.

    `wanted`: a Recipe, the path of one, a torch.nn.Module in eval mode, an ONNX file, weights, or a list of these. `options`
    make the recipe of a model (see `Recipe.of`), with `precision="int8"` besides; a recipe takes none. `refit` is an engine of
    the same recipe with other weights: its compiled plan takes the new ones. All is checked before
    anything is built, and what fails ends its own engine only: then, after the others, raises ToolkitError (BudgetError where
    engines were refused) that says which were not built and why.

    >>> import toolkit
    >>> (engine,) = toolkit.build("engines/fashion-resnet18-fp32.toml", out="built")
    >>> engine.name, engine.proof.verdict.accepted
    ('fashion-resnet18-fp32', True)
    """
    from toolkit.orders import build_all

    recipes = [recipe for one in _several(wanted) for recipe in recipes_of(one, options)]
    if not recipes:
        raise RecipeError("there is nothing to build", remedy="Give a recipe, a module, an ONNX file or weights")
    kinds = targets if targets is None or isinstance(targets, str) else ",".join(targets)
    old = None if refit is None else _open(refit)
    return [Engine.open(folder) for folder, _ in build_all(recipes, kinds, Path(out), stage, proof=proof, refit=old)]


@extras()
def export(wanted: Any, path: PathLike = "model.onnx", *, stage: Stage = quiet, **options: Any) -> Path:
    """Write the final typed ONNX graph of a recipe or a model to `path`, once it agrees with the reference.

    >>> import toolkit
    >>> toolkit.export("my.onnx", "typed.onnx", precision="fp16", resize=256)
    PosixPath('typed.onnx')
    """
    from toolkit import pipeline

    recipe = _single(wanted, options)
    pipeline.export(recipe, Path(path), stage)
    return Path(path)


@extras()
@named_options
def judge(
    engine: Engine | PathLike, *, data: PathLike | None = None, against: Engine | PathLike | None = None, stage: Stage = quiet
) -> Judgement:
    """The paired verdict on an engine: see `Engine.judge`.

    >>> import toolkit
    >>> found = toolkit.judge("engines/built/fashion-resnet18-int8")
    >>> found.verdict.word, found.accepted
    ('same', True)
    >>> print(found)
    fashion-resnet18-int8: accepted. same within 0.5 points: ...
    """
    return _open(engine).judge(data, against, stage)


@extras()
@named_options
def parity(
    engine: Engine | PathLike, *, data: PathLike | None = None, only: Sequence[str] = (), stage: Stage = quiet
) -> Parity:
    """How many answers change if the app decodes or resizes its pictures in another way: OpenCV, torchvision, Pillow, ONNX.

    `data` is a folder of pictures (default: the images of `[accept]`), `only` the first letters of some ways.

    >>> import toolkit
    >>> found = toolkit.parity("engines/built/fashion-resnet18-int8", data="pictures", only=["pillow-nearest"])
    >>> [(one.way, one.changed) for one in found.outcomes]
    [('pillow-nearest', 0)]
    """
    from toolkit.decoding import parity as compare

    return compare(_open(engine), data=data, only=only, stage=stage)


@extras()
@named_options
def bench(
    engines: Engine | PathLike | Sequence[Engine | PathLike],
    scenario: Scenario = "single-stream",
    *,
    seconds: float | None = None,
    batches: Sequence[int] = (),
    data: PathLike | None = None,
    save: PathLike | None = None,
    bound: float | None = None,
    loadgen: bool = True,
    threads: int | None = None,
    stage: Stage = quiet,
) -> Results:
    """Measure engines of one reference in shuffled rounds; `print(toolkit.table(results))` shows what came of it.

    `seconds` is the time for all of them together (default: as `toolkit bench` takes), `save` a file that what was measured goes
    to on the way. `bound` (seconds) limits p99 in scenario server, `loadgen` has MLPerf LoadGen issue the queries of offline and
    server, `threads` overrides what engines on the CPU were built with.

    >>> import toolkit
    >>> results = toolkit.bench("engines/built/fashion-resnet18-int8", seconds=1, batches=[1])
    >>> sorted({measurement.engine for measurement in results.measurements})
    ['fashion-resnet18-int8', 'reference']
    """
    from toolkit.measure import bench as measure

    if save is not None:
        require_place(Path(save))
    return measure(
        _several(engines),
        scenario,
        batches=batches,
        plan=plan_of(seconds=seconds),
        bound=bound,
        loadgen=loadgen,
        threads=threads,
        data=None if data is None else str(data),
        save=None if save is None else lambda results: results.write(Path(save)),
        stage=stage,
    )


def table(results: Results) -> str:
    """Results as the text that `toolkit bench` ends on.

    >>> import toolkit
    >>> from toolkit.harness.results import Results
    >>> print(toolkit.table(Results.read("results.json")))
    1 engine and the reference on ...
    """
    from toolkit.report.table import text

    return text(results)


@extras()
def tune(wanted: Any, *, limit: int | None = None, stage: Stage = quiet, **options: Any) -> TuneResult:
    """The fastest precision inside the recipe's budget; `toolkit.build(result.winner.recipe)` builds it. Raises BudgetError.

    >>> import toolkit
    >>> found = toolkit.tune("engines/fashion-resnet18-int8.toml", limit=16)  # doctest: +SKIP
    >>> toolkit.build(found.winner.recipe)  # doctest: +SKIP
    """
    from toolkit.tuning import tune as search

    recipe = _single(wanted, options)
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise RecipeError(f"{limit!r:.80} is no number of graphs to evaluate", remedy="Give 1 or more, or leave it to the search")
    return search(recipe, stage) if limit is None else search(recipe, stage, limit=limit)


@extras()
def recipes_of(wanted: Any, options: dict[str, Any]) -> list[Recipe]:
    """The recipes that one thing stands for: of a model as many as `precision` names with commas. Raises RecipeError."""
    ready = wanted if isinstance(wanted, Recipe) else None
    if ready is None and isinstance(wanted, (str, Path)) and str(wanted).lower().endswith(".toml"):
        ready = Recipe.load(wanted)
    if ready is not None:
        if options:
            what = f"a recipe takes no options, and {', '.join(sorted(options))} was given"
            raise RecipeError(what, remedy="Change the recipe, or give the model: a module, an ONNX file or weights")
        return [ready]
    from toolkit.draft import draft

    precision = options.get("precision") or ""
    table = dict(precision) if isinstance(precision, Mapping) else {}  # `data` in it is the short word
    kinds = str(table.pop("data", "") if table else precision).split(",")
    rest = {key: value for key, value in options.items() if key != "precision"} | ({"precision": table} if table else {})
    return [draft(wanted, kind.strip() or None, **rest).recipe for kind in kinds]


def _single(wanted: Any, options: dict[str, Any]) -> Recipe:
    recipes = recipes_of(wanted, options)
    if len(recipes) > 1:
        what = f"several precisions, {options['precision']}, where one is wanted"
        raise RecipeError(what, remedy="Name one, and call it for each")
    return recipes[0]


def _several(wanted: Any) -> list[Any]:
    single = isinstance(wanted, (str, Path, Recipe, Engine)) or is_module(wanted) or not isinstance(wanted, Iterable)
    return [wanted] if single else list(wanted)


def _open(engine: Engine | PathLike) -> Engine:
    return engine if isinstance(engine, Engine) else Engine.open(engine)
