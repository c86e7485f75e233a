"""`toolkit handoff`: an engine in the form that another program loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from toolkit.cli.app import Json, app, out, print_json
from toolkit.cli.guide import GUIDE, App

commands = App(path="handoff", help="An engine in the form that another program loads.")
app.add_typer(commands, name="handoff", rich_help_panel=GUIDE["handoff"][0])


@commands.command("ort")
def ort(
    engines: Annotated[list[Path], typer.Argument(help="engines for rtx")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder that the ONNX files go into")],
    embed: Annotated[bool, typer.Option(help="put the plan inside the ONNX file, or beside it")] = True,
    as_json: Json = False,
) -> None:
    """An ONNX file that carries its TensorRT-RTX engine: ONNX Runtime loads it with NVIDIA's plugin, without a build."""
    from toolkit.engine.engine import Engine
    from toolkit.handoff.ort import LOADING, PLUGIN, PLUGIN_SMS, refuse_same_names, to_onnxruntime

    files, opened = [], [Engine.open(path) for path in engines]
    refuse_same_names(opened)
    for engine in opened:
        file = to_onnxruntime(engine, output, embed=embed)
        files.append(str(file))
        if as_json:
            continue
        out.print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, {engine.manifest.precision} for {engine.manifest.device}")
        out.print(f"It needs pip install onnxruntime {PLUGIN} and a GPU of compute capability {PLUGIN_SMS}. Load it:")
        loading = LOADING.replace("FILE", repr(file.name)).replace("INPUT", repr(engine.manifest.inputs[0].name))
        out.print(loading, highlight=False)
    if as_json:
        print_json({"files": files})


@commands.command("triton")
def triton(
    engines: Annotated[
        list[Path], typer.Argument(help="engines; each becomes a model that takes tensors and one that takes pictures")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the model repository, new or existing")],
    results: Annotated[Path | None, typer.Option(help="a bench of these engines: sets batch sizes, delay and instances")] = None,
    backend: Annotated[
        Literal["auto", "onnxruntime", "tensorrt", "python"],
        typer.Option(help="auto: Triton's own where it has one; python: the toolkit's runner, for every engine"),
    ] = "auto",
    version: Annotated[int | None, typer.Option(help="default: the next, or the one that this engine already has")] = None,
    as_json: Json = False,
) -> None:
    """A model repository for NVIDIA's Triton: tensors or pictures in, with labels, batching, warm-up and a client."""
    from toolkit.engine.engine import Engine
    from toolkit.handoff.triton import to_triton
    from toolkit.harness.results import Results

    opened = [Engine.open(path) for path in engines]
    measured = None if results is None else Results.read(results)
    made = to_triton(opened, output, backend=backend, results=measured, version=version)
    if as_json:
        told = [{"models": list(one.models), "version": one.version, "remarks": list(one.remarks)} for one in made]
        print_json({"repository": str(output), "engines": told})
        return
    for one in made:
        out.print(f"{output}: {', '.join(one.models)}, version {one.version}", highlight=False)
        for remark in one.remarks:
            out.print(f"  {remark}", highlight=False)
    said = f"Start it: tritonserver --model-repository {output}\nAsk it: python {output / 'client.py'} photo.jpg"
    out.print(said, highlight=False)


@commands.command("ray")
def ray(
    engine: Annotated[Path, typer.Argument(help="an engine's folder or packed file")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the job's folder")],
    as_json: Json = False,
) -> None:
    """A Ray job that classifies folders, Parquet or WebDataset into Parquet, each picture once; it can be restarted."""
    from toolkit.engine.engine import Engine
    from toolkit.handoff.ray import to_ray

    script = to_ray(Engine.open(engine), output)
    if as_json:
        print_json({"job": str(output), "script": str(script)})
        return
    said = f"{script}\nHere: python {script} PICTURES -o ANSWERS\nOn a cluster: "
    said += f"ray job submit --working-dir {output} -- python {script.name} PICTURES -o ANSWERS"
    out.print(said, highlight=False)
