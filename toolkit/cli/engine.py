"""Commands on an engine as a thing: pack it, verify its signature, list what it is made of, bring it to today's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.app import EnginePath, Json, app, finish, following, out, print_json


@app.command()
def pack(
    engine: EnginePath,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="default: NAME.engine in this folder")] = None,
    as_json: Json = False,
) -> None:
    """Write an engine as one file, a plain zip that `toolkit.load` and every command take in place of its folder."""
    from toolkit.engine.engine import Engine
    from toolkit.engine.layout import SUFFIX

    opened = Engine.open(engine)
    target = opened.pack(output or Path(f"{opened.name}{SUFFIX}"))
    size = target.stat().st_size
    if as_json:
        print_json({"file": str(target), "name": opened.name, "files": len(opened.contents), "bytes": size})
    else:
        what = f"{opened.name}, {len(opened.contents)} files, {size / 1e6:.1f} MB"
        finish(f"{target}: {what}. {following(f'toolkit run {target} IMAGE', opened.manifest.target)}")


@app.command()
def verify(
    engine: EnginePath,
    trusted: Annotated[list[Path], typer.Option("--trusted", help="a public key; repeat the option for several")],
    as_json: Json = False,
) -> None:
    """Check that one of the trusted keys signed the engine, and that no file has changed since."""
    from toolkit.engine.engine import Engine
    from toolkit.engine.signing import verify as signed_by

    found = Engine.open(engine)
    key = signed_by(found.contents, trusted, str(engine))
    proof = found.proof
    if as_json:
        print_json({"engine": found.name, "key": key, "seal": found.manifest.seal, "proof": proof})
        return
    verdict = proof.verdict.text if proof else "it carries no verdict"
    then = following(f"toolkit run {engine} IMAGE", found.manifest.target)
    finish(f"{found.name}: signed by {key}, {len(found.contents)} files unchanged; {verdict}. {then}")


@app.command()
def upgrade(engines: Annotated[list[Path], typer.Argument(help="folders of engines")], as_json: Json = False) -> None:
    """Rewrite engines of an older format in the current one; what they compute stays the same."""
    from toolkit.engine.upgrade import upgrade as renew

    renewed: dict[str, object] = {}
    for engine in engines:
        manifest = renew(engine)
        renewed[str(engine)] = {"changed": manifest is not None}
        said = "already has the current format" if manifest is None else f"is of format version {manifest.version} now"
        if not as_json:
            out.print(f"{engine} {said}", highlight=False)
    if as_json:
        print_json(renewed)


@app.command()
def bom(engine: EnginePath, as_json: Json = False) -> None:
    """Print the engine's bill of materials as CycloneDX JSON, with or without --json."""
    from toolkit.engine.bom import bill_of_materials
    from toolkit.engine.engine import Engine

    print(bill_of_materials(Engine.open(engine)))
