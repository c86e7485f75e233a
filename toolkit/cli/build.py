"""Commands that make engines, from recipes or straight from a model, and the first recipe of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from toolkit.cli.app import Json, app, finish, following, out, print_json
from toolkit.report.listing import Listing

if TYPE_CHECKING:
    from toolkit.orders import Order, Outcome
    from toolkit.recipe import Recipe

Arch = Annotated[
    str | None, typer.Option(help="architecture of a file of weights: resnet18 to resnet152; default: read from the file")
]
ImagesOption = Annotated[str | None, typer.Option(help="a folder of images to calibrate INT8 on")]
Val = Annotated[str | None, typer.Option(help="labeled images to judge engines by, one folder for each class")]
Refit = Annotated[
    Path | None, typer.Option(help="an engine of the same recipe with other weights, which its plan exchanges for the new")
]
NAMES = ("input", "output", "name")  # of tensors and engines: text, though it may look like a number
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help='any key of a recipe, such as --set "size=[32, 32]" --set accept.min_agreement=0.99'),
]


@app.command()
def build(
    wanted: Annotated[list[str], typer.Argument(metavar="RECIPE|MODEL...", help="recipes; or ONNX files, or weights")],
    target: Annotated[str | None, typer.Option(help="cpu, openvino, cuda, tensorrt, rtx, rtx:sm89; several: with commas")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="the folder that engines go into")] = Path("engines/built"),
    precision: Annotated[str | None, typer.Option(help="for a model: fp32, fp16, int8 or fp8; several: with commas")] = None,
    arch: Arch = None,
    images: ImagesOption = None,
    val: Val = None,
    keys: Set = None,
    proof: Annotated[bool, typer.Option(help="judge each engine by the recipe's [accept]")] = True,
    if_available: Annotated[
        bool, typer.Option("--if-available", help="skip a target whose library is not installed, and say so")
    ] = False,
    refit: Refit = None,
    sign_key: Annotated[Path | None, typer.Option(help="a private Ed25519 key to sign each engine with")] = None,
    as_json: Json = False,
) -> None:
    """Build an engine for each recipe or model and each target; for a model, the recipe that was used is written beside them."""
    from toolkit.cli.progress import stages
    from toolkit.engine.engine import Engine
    from toolkit.orders import failure, fill, is_missing, orders_of

    flags = merged({"precision": precision, "arch": arch, "calibration": images, "accept": val}, pairs(keys or []))
    recipes = _recipes(wanted, flags, output)
    orders = orders_of([recipe for recipe, _ in recipes], target, output)
    old = None if refit is None else Engine.open(refit)
    with stages() as stage:
        outcomes = _heard(fill(orders, stage, proof=proof, sign_key=sign_key, refit=old), len(orders) > 1 and not as_json)
    left_out = [outcome for outcome in outcomes if if_available and is_missing(outcome)]
    kept = [outcome for outcome in outcomes if outcome not in left_out]
    drafted = _write(recipes, {outcome.order.recipe.name for outcome in outcomes if outcome.error is None}, output)
    if as_json:
        print_json({"engines": [_plain(outcome) for outcome in outcomes], "recipes": [str(path) for path in drafted]})
    else:
        for outcome in left_out:
            out.print(Text(f"skipped: {outcome.error}"))
        _tell(kept, orders, drafted)
    if (error := failure(kept)) is not None:
        raise error


@app.command()
def init(
    model: Annotated[str, typer.Argument(help="an ONNX file or weights")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="the recipe; default: NAME.toml here")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or fp8")] = "fp32",
    target: Annotated[str | None, typer.Option(help="cpu, openvino, cuda, tensorrt, rtx or rtx:sm89")] = None,
    arch: Arch = None,
    images: ImagesOption = None,
    val: Val = None,
    keys: Set = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing recipe")] = False,
    as_json: Json = False,
) -> None:
    """Write a first recipe for a model, with what its file tells and comments on the rest."""
    from toolkit.disk.files import write_atomically
    from toolkit.draft import commented, draft
    from toolkit.errors import RecipeError

    flags = merged({"arch": arch, "calibration": images, "accept": val, "target": target}, pairs(keys or []))
    found = draft(model, precision, **flags)
    path = output or Path(f"{found.recipe.name}.toml")
    if path.exists() and not force:
        raise RecipeError(f"{path} exists already", remedy="Choose another with -o, or replace it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, commented(found, path.absolute().parent).encode())
    if as_json:
        print_json({"recipe": str(path), "notes": list(found.told)})
        return
    for line in found.told:
        out.say(f"  {line}")
    finish(f"{path} is written: check its [preprocess]. Next: toolkit build {path}")


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE`, or `TABLE.KEY=VALUE`, -> values: as TOML writes them, or else as text. Raises RecipeError."""
    from toolkit.errors import RecipeError
    from toolkit.recipe.toml import read_toml

    found: dict[str, Any] = {}
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set '{pair}' is not KEY=VALUE", remedy='Write it like --set "size=[32, 32]"')
        try:
            value = read_toml(f"value = {text}")["value"]
        except ValueError:
            value = text.strip()
        table, _, leaf = key.strip().rpartition(".")
        value = text.strip().strip("\"'") if leaf in NAMES else value
        found = merged(found, {table: {leaf: value}} if table else {leaf: value})
    return found


def merged(flags: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Both: a table's keys go beside the path of its images that a flag named, and beside keys named one by one."""
    both = dict(flags)
    for key, value in given.items():
        before = both.get(key)
        if isinstance(value, dict) and before is not None:
            both[key] = {**(before if isinstance(before, dict) else {"data": before}), **value}
        else:
            both[key] = value
    return both


def _recipes(wanted: Sequence[str], flags: dict[str, Any], output: Path) -> list[tuple[Recipe, bool]]:
    """Every recipe, and whether it was drafted for a model. Raises RecipeError."""
    from toolkit.api import recipes_of

    given = {key: value for key, value in flags.items() if value is not None}
    found = []
    for one in wanted:
        is_model = not one.lower().endswith(".toml")
        recipes = recipes_of(one, given)
        if is_model:
            output.mkdir(parents=True, exist_ok=True)
        found += [(recipe, is_model) for recipe in recipes]
    return found


def _write(recipes: Sequence[tuple[Recipe, bool]], built: set[str], output: Path) -> list[Path]:
    """Lay each drafted recipe beside its engines; where none was built, only if that replaces no other. Gives their paths."""
    from toolkit.disk.files import write_atomically
    from toolkit.recipe.write import recipe_toml

    written = []
    for recipe, drafted in recipes:
        path = output / f"{recipe.name}.toml"
        if drafted and (recipe.name in built or not path.exists()):
            write_atomically(path, recipe_toml(recipe, output.absolute()).encode())
            written.append(path)
    return written


def _heard(outcomes: Iterable[Outcome], aloud: bool) -> list[Outcome]:
    """All of them; what failed is said as it comes."""
    found = []
    for outcome in outcomes:
        found.append(outcome)
        if outcome.error is not None and aloud:
            out.print(Text(f"{outcome.order.folder.name}: {outcome.error}", style="red"))
    return found


def _tell(outcomes: Sequence[Outcome], orders: Sequence[Order], drafted: Sequence[Path]) -> None:
    """Each engine with its notes; of several orders a table of what became of them; in the end what to do next."""
    built = [outcome for outcome in outcomes if outcome.manifest is not None]
    for order, manifest, _ in built:
        assert manifest is not None
        out.print(Text.assemble((str(order.folder), "bold"), f": {manifest.precision} for {manifest.device}"))
        out.notes(manifest.notes, f"toolkit inspect {order.folder}", 8 + 6 * (len(built) - 1))
    names = {outcome.order.recipe.name for outcome in built}
    for path in drafted:
        unused = "nothing was built of this recipe yet; change it and build it"
        what = "the recipe that was used" if path.stem in names else unused
        out.say(f"{what}: {path}")
    if len(orders) > 1 and any(outcome.error is not None for outcome in outcomes):
        out.print(Listing(("engine", "target", "outcome"), _became(outcomes)))
    if built:
        finish(_last([outcome.order for outcome in built]))


def _became(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A row for each; what is said of several is said at the first of them."""
    first: dict[str, str] = {}
    rows = []
    for order, manifest, error in outcomes:
        name = order.folder.name
        if manifest is not None:
            became = f"built: {manifest.precision}"
        else:
            known = first.setdefault(str(error), name)
            became = f"not built: {error}" if known == name else f"not built, as {known}"
        rows.append([name, str(order.target), became])
    return rows


def _last(done: Sequence[Order]) -> str:
    """How accurate, how large, where, and the next command; how fast, only a bench tells."""
    folders = [order.folder for order in done]
    bench = following(f"toolkit bench {' '.join(map(str, folders))} -o results.json", *(order.target.kind for order in done))
    if len(folders) > 1:
        return f"{len(folders)} engines in {folders[0].parent}, not timed yet. {bench}"
    told = _engine(folders[0])
    verdict = told["verdict"] or "not compared with its reference"
    return f"{folders[0].name}: {verdict}; {told['bytes'] / 1e6:.2f} MB in {folders[0]}, not timed yet. {bench}"


def _plain(outcome: Outcome) -> dict[str, Any]:
    order = outcome.order
    head = {"name": order.folder.name, "target": str(order.target), "folder": None, "error": None}
    if outcome.manifest is None:
        return {**head, "error": str(outcome.error)}
    told = {"precision": outcome.manifest.precision, "device": outcome.manifest.device, "notes": list(outcome.manifest.notes)}
    return {**head, "folder": str(order.folder), **told, **_engine(order.folder)}


def _engine(folder: Path) -> dict[str, Any]:
    """What was just built: the size of its compiled file, and its verdict in words."""
    from toolkit.engine.engine import Engine

    engine = Engine.open(folder)
    verdict = engine.proof.verdict if engine.proof else None
    size = len(engine.contents[engine.manifest.file])
    return {"bytes": size, "accepted": None if verdict is None else verdict.accepted, "verdict": verdict and verdict.text}
