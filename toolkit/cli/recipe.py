"""Commands that take a recipe and make no engine: its graph, its ranges, a tuned recipe, fine-tuned weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from toolkit.cli.app import Json, RecipePath, app, finish, out, place, plain, print_json

FOR_TRTEXEC = "its Q/DQ pairs are placed for a CPU, and TensorRT refuses those. For TensorRT: toolkit export RECIPE --for trtexec"


@app.command()
def export(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("-o", "--output", callback=place, help="the ONNX file")] = Path("model.onnx"),
    tool: Annotated[
        Literal["trtexec"] | None,
        typer.Option("--for", help="trtexec: typed for TensorRT, with the trtexec command in a script beside it"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the final typed ONNX graph, checked against the reference."""
    from toolkit import pipeline
    from toolkit.cli.progress import stages
    from toolkit.disk.files import write_atomically
    from toolkit.migrate.trtexec import input_of, trtexec_line
    from toolkit.recipe import Recipe
    from toolkit.types import Target

    wanted = Recipe.load(recipe)
    target = Target("tensorrt") if tool else Target.parse_many(wanted.build.target)[0]
    with stages() as stage:
        found, agreement, verdict, notes = pipeline.export(wanted, output, stage, target=target)
    line, script = trtexec_line(output, wanted, target), output.with_suffix(".trtexec.sh")
    if tool:
        write_atomically(script, f"#!/bin/sh\n{trtexec_line(Path(output.name), wanted, target, input_of(output))}\n".encode())
    if as_json:
        head = {"file": str(output), "what": found, "trtexec": line, "notes": notes}
        print_json({**head, "agreement": plain(agreement), "verdict": plain(verdict)})
        return
    out.print(f"{output}: {found}", highlight=False)
    out.say(f"  the FP32 graph against the reference: max |difference| {agreement.max_abs:.2g}, cosine {agreement.cosine:.6f}")
    out.say(f"  {line or FOR_TRTEXEC}")
    out.notes(notes, "they are in --json")
    near = "not run against the reference" if verdict is None else f"against the reference: {verdict.distance}"
    finish(f"{output}, {near}. Next: {f'cd {output.parent} && sh {script.name}' if tool else f'toolkit build {recipe}'}")


@app.command()
def calibrate(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("-o", "--output", callback=place, help="the ranges")] = Path("ranges.json"),
    as_json: Json = False,
) -> None:
    """One pass over the calibration images; every method's range of every tensor."""
    from toolkit import pipeline
    from toolkit.cli.progress import stages
    from toolkit.recipe import Recipe

    with stages() as stage:
        ranges = pipeline.ranges_of(Recipe.load(recipe), stage)
    ranges.write(output)
    if as_json:
        told = {"file": str(output), "tensors": len(ranges.tensors), "images": ranges.images}
        print_json({**told, "notes": [*ranges.notes, *ranges.remarks]})
        return
    out.notes([*ranges.notes, *ranges.remarks], f"they are in {output}")
    finish(f"{output}: {len(ranges.tensors)} tensors over {ranges.images} images. Next: toolkit build {recipe}")


@app.command()
def tune(
    recipe: RecipePath,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", callback=place, help="the tuned recipe; default: RECIPE-tuned.toml")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="the most graphs to evaluate")] = 60,
    targets: Annotated[
        str | None, typer.Option(help="such as cpu,openvino; default: the recipe's, and for a CPU every installed library")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the precision of each layer for the fastest engine within the recipe's budget; write it as a recipe."""
    from toolkit.cli.progress import stages
    from toolkit.disk.files import write_atomically
    from toolkit.recipe import Recipe
    from toolkit.report.tuning import outcome, tuning
    from toolkit.tuning import tune as search

    target = output or recipe.with_name(f"{recipe.stem}-tuned.toml")
    with stages() as stage:
        found = search(Recipe.load(recipe), stage, limit=limit, targets=targets)
    write_atomically(target, found.toml(target.absolute().parent).encode())
    if as_json:
        print_json({"recipe": str(target), "front": [trial.name for trial in found.front], **plain(found)})
        return
    out.print(tuning(found, verbose=out.detail == "verbose"))
    finish(f"{outcome(found)}, in {target}. Next: toolkit build {target}")


@app.command()
def finetune(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder for weights, ranges and the recipe that uses them")],
    steps: Annotated[int, typer.Option(min=1, help="training steps")] = 200,
    weight_bits: Annotated[int, typer.Option(min=2, max=8, help="bits of a quantized weight")] = 8,
    images: Annotated[int, typer.Option(min=1, help="the most calibration images to train on")] = 2048,
    seed: Annotated[int, typer.Option(help="seed of the order of the images")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; more are faster where the network is large and the cores are free")
    ] = 1,
    as_json: Json = False,
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
    written = output / f"{tuned.name}.toml"
    if as_json:
        print_json({"name": tuned.name, "folder": str(output), "recipe": str(written)})
    else:
        finish(f"{tuned.name}: written to {output}. Next: toolkit build {written}")
