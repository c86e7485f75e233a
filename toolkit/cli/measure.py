"""Commands that run engines: answers, accuracy, a bench, its comparison and its report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from toolkit.cli.app import UNDECIDED, EnginePath, Json, app, err, finish, following, out, place, plain, print_json
from toolkit.harness.measurement import Scenario
from toolkit.types import printable

if TYPE_CHECKING:
    from toolkit.engine.judge import Judgement
    from toolkit.harness.results import Results


@app.command()
def run(
    engine: EnginePath,
    images: Annotated[list[Path], typer.Argument(help="images, or folders of them at any depth")],
    as_json: Json = False,
) -> None:
    """Print the five most likely classes of each image; exit code 2 at the end if an image could not be read."""
    from toolkit.engine.engine import load
    from toolkit.errors import DataError
    from toolkit.images.folder import with_folders

    images, remarks = with_folders(images)
    for remark in remarks:
        err.print(Text(remark))
    found: dict[str, object] = {}
    bad: list[str] = []
    with load(engine) as runner:
        for path, answer in zip(images, runner.answers(iter(images)), strict=True):
            if isinstance(answer, DataError):
                if len(images) == 1:
                    raise answer
                bad.append(str(path))
                found[str(path)] = {"error": str(answer)}
                err.print(f"{path}: {answer}", highlight=False)
                continue
            found[str(path)] = [p._asdict() for p in answer]
            if not as_json:
                likely = ", ".join(f"{p.label} {p.probability:.1%}" for p in answer)
                out.print(Text.assemble((str(path), "bold"), f": {likely}"))
    if as_json:
        print_json(found)
    if bad:
        what = f"{len(bad)} of {len(images)} images could not be read"
        raise DataError(what, remedy="The answers to the others are above")


@app.command()
def accuracy(
    engine: EnginePath,
    against: Annotated[Path | None, typer.Option(help="another engine to compare with, instead of the reference")] = None,
    data: Annotated[str | None, typer.Option(help="labeled images; default: those of the recipe's [accept]")] = None,
    as_json: Json = False,
) -> None:
    """Compare an engine with its reference on the same images; exit code 1 if it is refused, 3 if the images are too few."""
    from toolkit.cli.progress import stages
    from toolkit.engine.engine import Engine

    with stages() as stage:
        opened = Engine.open(engine)
        found = opened.judge(data, against, stage)
    if as_json:
        verdict = {} if found.verdict is None else {"word": found.verdict.word, **plain(found.verdict)}
        head = {"accepted": found.accepted, "undecided": found.undecided, "how": found.how}
        print_json({**head, **verdict, "judgement": plain(found)})
    else:
        out.print(str(found), highlight=False)
        finish(_judged(engine, found, opened.manifest.target))
    if found.accepted is False:
        raise typer.Exit(UNDECIDED if found.undecided else 1)


def _judged(engine: Path, found: Judgement, target: str) -> str:
    """The last line of `accuracy`: the word, and what to do next."""
    if found.accepted is None:
        return f"{engine}: nothing to compare it with. Next: build it with images in [accept], or name another: --against ENGINE"
    if found.accepted:
        return f"{engine}: accepted. {following(f'toolkit bench {engine} -o results.json', target)}"
    if found.undecided:
        return f"{engine}: cannot tell with these images. Next: toolkit accuracy {engine} --data DIR, with more images"
    return f"{engine}: refused. Next: toolkit why {engine}"


@app.command()
def bench(
    engines: Annotated[list[Path], typer.Argument(help="engines of one reference")],
    scenario: Annotated[Scenario, typer.Option(help="one caller, throughput, or Poisson arrivals")] = "single-stream",
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=place, help="the file for raw samples and verdicts")
    ] = Path("results.json"),
    batch: Annotated[list[int] | None, typer.Option(min=1, help="a batch size; repeat the option for several")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="measure for 20 seconds only: wider intervals")] = False,
    seconds: Annotated[float | None, typer.Option(help="time to measure all engines together; offline and server: each")] = None,
    warmup: Annotated[float | None, typer.Option(help="the longest warm-up of each engine, in seconds")] = None,
    bound_ms: Annotated[float | None, typer.Option(help="server: the limit for p99; default: the recipe's max_p99_ms")] = None,
    loadgen: Annotated[bool, typer.Option(help="offline and server: MLPerf LoadGen issues the queries")] = True,
    data: Annotated[str | None, typer.Option(help="labeled images; default: those of the recipe's [accept]")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of engines on the CPU; default: as they were built")] = None,
    share: Annotated[Path | None, typer.Option(callback=place, help="also a file to share: no paths, names or images")] = None,
    as_json: Json = False,
) -> None:
    """Measure engines and their reference in shuffled rounds; Ctrl-C keeps what was measured; exit code 2 if one failed."""
    from toolkit.cli.progress import stages
    from toolkit.harness.run import plan_of
    from toolkit.measure import bench as measure

    with stages() as stage:
        results = measure(
            engines,
            scenario,
            data=data,
            batches=batch or (),
            plan=plan_of(quick, seconds, warmup),
            bound=None if bound_ms is None else bound_ms / 1000,
            loadgen=loadgen,
            threads=threads,
            save=lambda results: results.write(output),
            stage=stage,
        )
    if share is not None:
        _share(results, share)
    _show(results, as_json, f"Raw samples: {output}. Next: toolkit report {output} -o report.html", engines)
    _require_whole(results, output)


def _require_whole(results: Results, path: Path) -> None:
    """Raises MeasurementError where an engine failed, or could not be judged."""
    from toolkit.errors import MeasurementError

    if broken := results.broken:
        name, why = next(iter(broken.items()))
        more = f" (and {len(broken) - 1} more, above)" if len(broken) > 1 else ""
        raise MeasurementError(f"{name}: {why}{more}", remedy=f"What was measured is in {path}")


def _share(results: Results, path: Path) -> None:
    """Write what may be given away, and say so on stderr."""
    import getpass
    import platform

    from toolkit.harness.share import shared

    host = platform.node()
    shared(results, [host, host.partition(".")[0], getpass.getuser()]).write(path)
    err.print(Text(f"to share: {path}, {path.stat().st_size / 1e3:.0f} kB; read it before you send it"))


def _show(results: Results, as_json: bool, last: str, engines: Sequence[Path] = ()) -> None:
    """The table, what could not be measured, what the timings are doubted for, and in the end which engine to ship."""
    from toolkit.report.decision import decide
    from toolkit.report.summary import rows
    from toolkit.report.table import table
    from toolkit.report.told import told

    if as_json:
        print_json(told(results))
        return
    summary = rows(results)
    out.print(table(results))
    for name, why in results.failures.items():
        out.say(f"{name}: {why}")
    for text in results.notes:
        out.say(text)
    for row in summary if out.detail == "verbose" else ():
        out.notes(row.trouble, "")
    decision = decide(results, summary)
    after = f"Next: {_at(decision.next, engines)}. " if decision and decision.next else ""
    finish(f"{decision.text} {after}{last}" if decision else last)


def _at(command: str, engines: Sequence[Path]) -> str:
    """`toolkit COMMAND ENGINE ...` with the path that the engine was given by: results know no paths."""
    places = {path.resolve().name: shlex.quote(str(path)) for path in engines}
    program, name, engine, *rest = command.split()
    return " ".join([program, name, places.get(engine, engine), *rest])


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="results of a bench")],
    new: Annotated[Path, typer.Argument(help="results of the same bench, later")],
    markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown, for a pull request")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="also as a page: both runs side by side")] = None,
    as_json: Json = False,
) -> None:
    """Tell a real change from noise; exit code 1 on a regression."""
    from toolkit.harness.compare import compare as compared
    from toolkit.harness.results import Results
    from toolkit.report.compare_page import compare_page, differences
    from toolkit.report.write import write_page

    sides = Results.read(old), Results.read(new)
    found = compared(*sides)
    if output is not None:
        write_page(output, compare_page(*sides, found))
    if as_json:
        print_json({"regressed": found.regressed, **plain(found)})
    elif markdown:
        print(printable(found.markdown), end="")
    else:
        out.print(differences(found))
        for note in found.notes:
            out.say(note)
        page = f"The page: {output}" if output is not None else f"Next: toolkit compare {old} {new} -o compare.html"
        finish(f"{found.headline}. {page}")
    if found.regressed:
        raise typer.Exit(1)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="files that `toolkit bench` wrote")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the page: one file, opens offline")] = Path("report.html"),
    markdown: Annotated[Path | None, typer.Option(help="also as Markdown, for a pull request")] = None,
    junit: Annotated[Path | None, typer.Option(help="also as JUnit XML, for CI")] = None,
    why: Annotated[
        list[Path] | None,
        typer.Option(help="output of `toolkit why ENGINE --json`: shows the noise of each layer on the network"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn results into a table here and a page that explains them."""
    from toolkit.report.write import write_report

    _show(write_report(results, output, markdown, junit, why or ()), as_json, f"The page: {output}")
