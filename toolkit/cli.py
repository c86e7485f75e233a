"""The command line: it reads arguments, calls one function of a room, and prints. Failures are one line and exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from toolkit.bench.measurement import Scenario
from toolkit.errors import BudgetError, ToolkitError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Takes a ResNet, or any ONNX image classifier, to measured engines.",
)
out, err = Console(), Console(stderr=True)
INTERRUPTED = 130  # how typer reports Ctrl-C
UsageError: Any = typer.BadParameter.__base__  # of the click that this typer brings

RecipePath = Annotated[Path, typer.Argument(help="a recipe, such as engines/fashion-resnet18-int8.toml")]
EnginePath = Annotated[Path, typer.Argument(help="an engine's folder, such as engines/built/fashion-resnet18-int8")]
Json = Annotated[bool, typer.Option("--json", help="for machines")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show the traceback of a failure")] = False) -> None:
    """Options that stand before the command."""


@app.command()
def describe(arch: Annotated[str, typer.Argument(help="resnet18, 34, 50, 101 or 152")], as_json: Json = False) -> None:
    """Print the stages of a ResNet: blocks, output size, parameters, multiply-adds."""
    from toolkit.reference.describe import describe as stages
    from toolkit.report.description import description

    found = stages(arch)
    _print_json(found) if as_json else out.print(description(found))


@app.command()
def export(recipe: RecipePath, output: Annotated[Path, typer.Option("-o", "--output")] = Path("model.onnx")) -> None:
    """Write the final typed ONNX graph, checked against the reference."""
    from toolkit import pipeline
    from toolkit.progress import stages
    from toolkit.recipe import Recipe

    with stages() as stage:
        found, agreement = pipeline.export(Recipe.load(recipe), output, stage)
    out.print(f"{output}: {found}", highlight=False)
    out.print(f"  the FP32 graph against the reference: max |difference| {agreement.max_abs:.2g}, cosine {agreement.cosine:.6f}")


@app.command()
def calibrate(recipe: RecipePath, output: Annotated[Path, typer.Option("-o", "--output")] = Path("ranges.json")) -> None:
    """One pass over the calibration images; every method's range of every tensor."""
    from toolkit import pipeline
    from toolkit.progress import stages
    from toolkit.recipe import Recipe

    with stages() as stage:
        ranges = pipeline.ranges_of(Recipe.load(recipe), stage)
    ranges.write(output)
    out.print(f"{output}: {len(ranges.tensors)} tensors over {ranges.images} images")
    for remark in ranges.remarks:
        out.print(f"  {remark}", highlight=False, markup=False)


@app.command()
def build(
    recipes: Annotated[list[Path], typer.Argument(help="recipes")],
    target: Annotated[str | None, typer.Option(help="cpu, openvino, cuda, tensorrt or rtx:sm89; several with commas")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder that engines go into")] = Path("engines/built"),
    proof: Annotated[bool, typer.Option(help="hold each engine to the recipe's [accept]")] = True,
    if_available: Annotated[
        bool, typer.Option("--if-available", help="where a target's library is absent, say so and go on")
    ] = False,
) -> None:
    """Build an engine for each recipe and target."""
    from toolkit import pipeline
    from toolkit.errors import MissingExtra
    from toolkit.progress import stages
    from toolkit.recipe import Recipe

    try:
        with stages() as stage:
            built = list(pipeline.build_all([Recipe.load(path) for path in recipes], target, output, stage, proof=proof))
    except MissingExtra as error:
        if not if_available:
            raise
        out.print(f"left out: {error}", markup=False)
        return
    for folder, manifest in built:
        out.print(f"[bold]{folder}[/]: {manifest.precision} for {manifest.device}")
        for note in manifest.notes:
            out.print(f"  {note}", highlight=False, markup=False)


@app.command()
def run(engine: EnginePath, images: Annotated[list[Path], typer.Argument()], as_json: Json = False) -> None:
    """Print the five likeliest classes of each image."""
    from toolkit.engine import load

    with load(engine) as runner:
        answers = runner.classify([*images])
    if as_json:
        _print_json({str(path): [p._asdict() for p in top] for path, top in zip(images, answers, strict=True)})
        return
    for path, top in zip(images, answers, strict=True):
        out.print(f"[bold]{path}[/]: " + ", ".join(f"{p.label} {p.probability:.1%}" for p in top), highlight=False)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="files that `toolkit bench` wrote")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the page: one file, opens offline")] = Path("report.html"),
    markdown: Annotated[Path | None, typer.Option(help="also as Markdown, for a pull request")] = None,
    junit: Annotated[Path | None, typer.Option(help="also as JUnit XML, for CI")] = None,
) -> None:
    """Turn results into a table here and a page that explains them."""
    from toolkit.report.table import table
    from toolkit.report.write import write_report

    out.print(table(write_report(results, output, markdown, junit)))
    out.print(f"the report: {output}", highlight=False)


@app.command()
def accuracy(
    engine: EnginePath,
    against: Annotated[Path | None, typer.Option(help="another engine, in place of the reference")] = None,
    as_json: Json = False,
) -> None:
    """The paired verdict on an engine against its reference; exit code 1 where it is refused."""
    from toolkit.measure import judge
    from toolkit.progress import stages

    with stages() as stage:
        verdict, how = judge(engine, against, stage)
    if as_json:
        _print_json({"accepted": verdict.accepted, "word": verdict.word, "how": how, **_plain(verdict)})
    else:
        state = "[bold green]accepted[/]" if verdict.accepted else "[bold red]refused[/]"
        out.print(f"{verdict.engine} against {verdict.reference}: {state}. {verdict.text}", highlight=False)
        if verdict.top1 is not None:
            out.print(f"  top-1 {verdict.top1[0]:.2%} -> {verdict.top1[1]:.2%} on {verdict.images} images", highlight=False)
        out.print(f"  {how}", highlight=False)
    if not verdict.accepted:
        raise typer.Exit(1)


@app.command()
def bench(
    engines: Annotated[list[Path], typer.Argument(help="folders of engines of one reference")],
    scenario: Annotated[Scenario, typer.Option(help="one caller, throughput, or Poisson arrivals")] = "single-stream",
    output: Annotated[Path, typer.Option("-o", "--output", help="raw samples and verdicts")] = Path("results.json"),
    batch: Annotated[list[int] | None, typer.Option(min=1, help="batch sizes; say it once for each")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="20 seconds: wider intervals")] = False,
    seconds: Annotated[float | None, typer.Option(help="for all engines together; under load for each")] = None,
    warmup: Annotated[float | None, typer.Option(help="seconds of warm-up, at most, each")] = None,
    bound_ms: Annotated[
        float | None, typer.Option(help="server: p99 is held under this; absent: the recipe's max_p99_ms")
    ] = None,
    loadgen: Annotated[bool, typer.Option(help="offline and server: MLPerf LoadGen issues the queries")] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="of engines on the CPU; absent: as they were built")] = None,
) -> None:
    """Measure engines and their reference in shuffled rounds; what was measured is kept even when it is cut short."""
    from toolkit.bench.run import plan_of
    from toolkit.measure import bench as measure
    from toolkit.progress import stages
    from toolkit.report.table import table

    with stages() as stage:
        results = measure(
            engines,
            scenario,
            batches=batch or (),
            plan=plan_of(quick, seconds, warmup),
            bound=None if bound_ms is None else bound_ms / 1000,
            loadgen=loadgen,
            threads=threads,
            save=lambda results: results.write(output),
            stage=stage,
        )
    out.print(table(results))
    out.print(f"raw samples: {output}. A page of it: toolkit report {output} -o report.html", highlight=False)


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="results of a bench")],
    new: Annotated[Path, typer.Argument(help="results of the same bench, later")],
    markdown: Annotated[bool, typer.Option("--markdown", help="for a pull request")] = False,
) -> None:
    """Tell a real change from noise; exit code 1 on a regression."""
    from toolkit.bench.compare import compare as compared
    from toolkit.bench.results import Results

    found = compared(Results.read(old), Results.read(new))
    print(found.markdown, end="") if markdown else out.print(Markdown(found.markdown))
    if found.regressed:
        raise typer.Exit(1)


@app.command()
def tune(
    recipe: RecipePath,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="the tuned recipe; absent: RECIPE-tuned.toml")] = None,
    limit: Annotated[int, typer.Option(help="how many graphs may be evaluated")] = 60,
) -> None:
    """Search the precision of each layer for the fastest engine within the recipe's budget; write it as a recipe."""
    from toolkit.manifest import write_atomically
    from toolkit.progress import stages
    from toolkit.recipe import Recipe
    from toolkit.report.tuning import tuning
    from toolkit.tune import tune as search

    target = output or recipe.with_name(f"{recipe.stem}-tuned.toml")
    with stages() as stage:
        found = search(Recipe.load(recipe), stage, limit=limit)
    write_atomically(target, found.toml(target.absolute().parent).encode())
    out.print(tuning(found))
    out.print(f"the tuned recipe: {target}. Build it: toolkit build {target}", highlight=False)


@app.command()
def inspect(engine: EnginePath, as_json: Json = False) -> None:
    """An engine's manifest, layers, ranges and what its Q/DQ placement leaves to wish for."""
    from toolkit.inspection import inspect as look
    from toolkit.report.inspection import inspection

    found = look(engine)
    _print_json(found) if as_json else out.print(inspection(found))


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can build and run, and the next step for what it cannot."""
    from toolkit.doctor import examine
    from toolkit.report.diagnosis import diagnosis

    rows = examine()
    _print_json(rows) if as_json else out.print(diagnosis(rows))


def _print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=1))


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def main() -> NoReturn:
    """The entry point: a refused verdict exits 1, any other failure 2, both with one line and no traceback."""
    debug = "--debug" in sys.argv[1:]
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        code = app(standalone_mode=False)  # else Ctrl-C would be answered with "Aborted." and nothing more
    except UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except BudgetError as error:
        _fail(error, 1, debug)
    except (ToolkitError, OSError) as error:
        _fail(error, 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        _fail(KeyboardInterrupt(), 2, debug)
    except Exception as error:  # a fault of the toolkit's own: exit code 1 would say that a verdict was refused
        if debug:
            raise
        remedy = "Run the command again with --debug, and report what it prints"
        _fail(ToolkitError(f"the toolkit has a fault here ({type(error).__name__}: {error})", remedy=remedy), 2, debug)
    if code == INTERRUPTED:
        _fail(KeyboardInterrupt(), 2, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: BaseException, code: int, debug: bool) -> NoReturn:
    if debug:
        raise error
    text = "stopped; what was not finished is as it was before" if isinstance(error, KeyboardInterrupt) else str(error)
    # A remedy such as pip install 'resnet-deploy[gpu]' is no markup.
    err.print(f"[bold red]error:[/] {escape(' '.join(text.split()))}", highlight=False, soft_wrap=True)
    sys.exit(code)
