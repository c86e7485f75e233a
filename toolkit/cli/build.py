"""Commands that make something: a graph, ranges, engines, a tuned recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import EnginePath, RecipePath, app, out


@app.command()
def export(recipe: RecipePath, output: Annotated[Path, typer.Option("-o", "--output")] = Path("model.onnx")) -> None:
    """Write the final typed ONNX graph, checked against the reference."""
    from toolkit import pipeline
    from toolkit.cli.progress import stages
    from toolkit.migrate.trtexec import trtexec_line
    from toolkit.recipe import Recipe

    with stages() as stage:
        found, agreement, verdict, notes = pipeline.export(Recipe.load(recipe), output, stage)
    out.print(f"{output}: {found}", highlight=False)
    out.print(f"  the FP32 graph against the reference: max |difference| {agreement.max_abs:.2g}, cosine {agreement.cosine:.6f}")
    out.print(f"  {trtexec_line(output, Recipe.load(recipe))}", highlight=False, soft_wrap=True)
    if verdict is not None:
        out.print(f"  this graph against the reference: {verdict.distance}", highlight=False)
    for note in notes:
        out.print(f"  {note}", highlight=False)


@app.command()
def calibrate(recipe: RecipePath, output: Annotated[Path, typer.Option("-o", "--output")] = Path("ranges.json")) -> None:
    """One pass over the calibration images; every method's range of every tensor."""
    from toolkit import pipeline
    from toolkit.cli.progress import stages
    from toolkit.recipe import Recipe

    with stages() as stage:
        ranges = pipeline.ranges_of(Recipe.load(recipe), stage)
    ranges.write(output)
    out.print(f"{output}: {len(ranges.tensors)} tensors over {ranges.images} images")
    for remark in ranges.remarks:
        out.print(f"  {remark}", highlight=False)


@app.command()
def tune(
    recipe: RecipePath,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="the tuned recipe; absent: RECIPE-tuned.toml")] = None,
    limit: Annotated[int, typer.Option(help="how many graphs may be evaluated")] = 60,
    targets: Annotated[
        str | None, typer.Option(help="such as cpu,openvino; absent: the recipe's, and for a CPU all that is installed")
    ] = None,
) -> None:
    """Search the precision of each layer for the fastest engine within the recipe's budget; write it as a recipe."""
    from toolkit.cli.progress import stages
    from toolkit.disk.files import write_atomically
    from toolkit.recipe import Recipe
    from toolkit.report.tuning import tuning
    from toolkit.tuning import tune as search

    target = output or recipe.with_name(f"{recipe.stem}-tuned.toml")
    with stages() as stage:
        found = search(Recipe.load(recipe), stage, limit=limit, targets=targets)
    write_atomically(target, found.toml(target.absolute().parent).encode())
    out.print(tuning(found))
    out.print(f"the tuned recipe: {target}. Build it: toolkit build {target}", highlight=False)


@app.command()
def finetune(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder for weights, ranges and the recipe that uses them")],
    steps: Annotated[int, typer.Option(min=1)] = 200,
    weight_bits: Annotated[int, typer.Option(min=2, max=8)] = 8,
    images: Annotated[int, typer.Option(min=1, help="at most so many of the calibration images")] = 2048,
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int, typer.Option(min=1, help="more help where the network is large and the cores are free")] = 1,
) -> None:
    """Quantization-aware fine-tuning by distillation: no labels needed; writes a recipe to build from."""
    from toolkit.cli.progress import stages
    from toolkit.finetune.qat import finetune as tune
    from toolkit.recipe import Recipe

    with stages() as stage:
        tuned = tune(
            Recipe.load(recipe),
            output,
            steps=steps,
            weight_bits=weight_bits,
            images=images,
            seed=seed,
            threads=threads,
            stage=stage,
        )
    next_one = f"Next: toolkit build {output / tuned.name}.toml"
    out.print(f"{tuned.name}: written to {output}. {next_one}", highlight=False, soft_wrap=True)


@app.command()
def pack(
    engine: EnginePath,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="absent: NAME.engine in this folder")] = None,
) -> None:
    """Write an engine as one file, a plain zip that `toolkit.load` and every command take in place of its folder."""
    from toolkit.engine.engine import Engine
    from toolkit.engine.layout import SUFFIX

    opened = Engine.open(engine)
    target = opened.pack(output or Path(f"{opened.name}{SUFFIX}"))
    what = f"{opened.name}, {len(opened.contents)} files, {target.stat().st_size / 1e6:.1f} MB"
    out.print(f"{target}: {what}", highlight=False, markup=False, soft_wrap=True)
