"""The reference of the commands, made of the help texts that the commands themselves print."""

from __future__ import annotations

from typing import Any

HEAD = """# Commands

This page is generated from the help of the installed command: `toolkit COMMAND --help` prints the same. The command is also
`resnet-deploy` and `python -m toolkit`. Every command also takes `--quiet` (`-q`), `--verbose` (`-v`) and `--debug`, which shows
the traceback of a failure. See also the [exit codes](exit-codes.md) and the [JSON](json.md) that `--json` prints.

"""


def commands() -> str:
    """The whole page, in Markdown."""
    import typer

    from toolkit.cli import main  # noqa: F401  registers every command
    from toolkit.cli.app import app

    group: Any = typer.main.get_command(app)
    parts = [part for name in sorted(group.commands) for part in _command((name,), group.commands[name])]
    headings = list(dict.fromkeys(str(group.commands[name].rich_help_panel or "Commands") for name in group.commands))
    index = [line for heading in headings for line in (f"\n**{heading}**\n", *_listed(group, heading))]
    return HEAD + "\n".join(index) + "\n\n" + "\n".join(parts)


def _listed(group: Any, heading: str) -> list[str]:
    """The commands under one heading of the help, a line each."""
    named = {n: c for n, c in group.commands.items() if str(c.rich_help_panel or "Commands") == heading and not c.hidden}
    return [f"- [`toolkit {name}`](#toolkit-{name}): {_line(command.help)}" for name, command in named.items()]


def _command(path: tuple[str, ...], command: Any) -> list[str]:
    inner = getattr(command, "commands", None) or {}
    arguments = [p for p in command.params if type(p).__name__.endswith("Argument")]
    options = [p for p in command.params if p not in arguments and not p.hidden]
    usage = " ".join(
        ("toolkit", *path, *(_shown(a) for a in arguments), *(["[OPTIONS]"] if options else ["COMMAND"] if inner else []))
    )
    lines = [f"{'#' * (len(path) + 1)} toolkit {' '.join(path)}", "", *_help(command.help), "", "```text", usage, "```", ""]
    if arguments or options:
        lines += ["| argument or option | default | is |", "|---|---|---|"]
        lines += [f"| `{_cell(_shown(a))}` | {'' if a.required else _default(a)} | {_cell(a.help)} |" for a in arguments]
        lines += [f"| {_names(o)} | {_default(o)} | {_cell(o.help)} |" for o in options] + [""]
    lines += _examples(command.epilog)
    return [*lines, *(part for name in sorted(inner) for part in _command((*path, name), inner[name]))]


def _help(text: str | None) -> list[str]:
    """Paragraphs as they stand; one that begins with the mark for text that must not be wrapped is an example."""
    lines = []
    for paragraph in (text or "").strip().split("\n\n"):
        if paragraph.startswith("\b"):
            lines += ["```text", paragraph.lstrip("\b").strip("\n"), "```", ""]
        else:
            lines += [" ".join(paragraph.split()), ""]
    return lines


def _examples(epilog: str | None) -> list[str]:
    """What stands below a command's help: lines behind a prompt."""
    shown = [line.strip().removeprefix("$ ") for line in (epilog or "").splitlines() if line.strip().startswith("$ ")]
    return ["Examples:", "", "```bash", *shown, "```", ""] if shown else []


def _shown(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 and not argument.metavar else "")


def _names(option: Any) -> str:
    kind = getattr(option.type_descriptor.annotation, "__name__", "")
    value = "" if option.is_flag else f" {(option.metavar or {'int': 'N', 'float': 'X', 'Path': 'PATH'}.get(kind, 'TEXT'))}"
    return ", ".join(f"`{name}{value}`" for name in (*option.opts, *option.secondary_opts))


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value == () or value == [] or (value is False and not parameter.secondary_opts):
        return "required" if parameter.required else ""
    if isinstance(value, bool):
        return f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`"
    return f"`{value}`"


def _line(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
