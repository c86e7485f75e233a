"""`toolkit cache`: where the cache lies, and a way to empty it."""

from __future__ import annotations

from toolkit.cli.app import Json, app, out, print_json
from toolkit.cli.guide import GUIDE, App

commands = App(path="cache", help="What earlier commands keep for reuse: ranges, plans, timings, checkpoints.")
app.add_typer(commands, name="cache", rich_help_panel=GUIDE["cache"][0])


@commands.command("dir")
def where(as_json: Json = False) -> None:
    """Print the cache's folder; XDG_CACHE_HOME moves it."""
    from toolkit.disk.cache import LIMIT, entries
    from toolkit.disk.files import cache_folder

    folder = cache_folder()
    if as_json:
        kinds: dict[str, int] = {}
        for entry in entries():
            kinds[entry.path.parent.name] = kinds.get(entry.path.parent.name, 0) + entry.size
        print_json({"folder": str(folder), "limit": LIMIT, "bytes": kinds})
    else:
        out.print(str(folder), highlight=False)


@commands.command()
def clean(as_json: Json = False) -> None:
    """Remove all of it; commands compute it again when they need it."""
    from toolkit.disk.cache import clean as remove

    files, size = remove()
    if as_json:
        print_json({"files": files, "bytes": size})
    else:
        out.print(f"removed {files} files, {size / 2**20:.1f} MiB", highlight=False)
