"""`toolkit handoff`: an engine in the form that another program loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import app, out

commands = typer.Typer(no_args_is_help=True, help="An engine in the form that another program loads.")
app.add_typer(commands, name="handoff")


@commands.command("ort")
def ort(
    engines: Annotated[list[Path], typer.Argument(help="engines for rtx")],
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder that the ONNX files go into")],
    embed: Annotated[bool, typer.Option(help="the plan inside the ONNX file, or beside it")] = True,
) -> None:
    """An ONNX file that carries its TensorRT-RTX engine: ONNX Runtime loads it with NVIDIA's plugin, without a build."""
    from toolkit.engine.engine import Engine
    from toolkit.engine.handoff import LOADING, PLUGIN, PLUGIN_SMS, to_onnxruntime

    for path in engines:
        engine = Engine.open(path)
        file = to_onnxruntime(engine, output, embed=embed)
        out.print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, {engine.manifest.precision} for {engine.manifest.device}")
        out.print(f"It needs pip install onnxruntime {PLUGIN} and a GPU of compute capability {PLUGIN_SMS}. Load it:")
        loading = LOADING.replace("FILE", repr(file.name)).replace("INPUT", repr(engine.manifest.inputs[0].name))
        out.print(loading, highlight=False, soft_wrap=True)
