"""The command line on real terminals of several widths, on a dumb one, without color, and on a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import msgspec
import pytest

from toolkit.cli import main as _registers  # noqa: F401  every command
from toolkit.cli.app import UNDECIDED, app
from toolkit.cli.console import PlainConsole, weight
from toolkit.cli.guide import GUIDE, MAKE
from toolkit.decoding.result import Flip, Outcome, Parity
from toolkit.diff.result import Diff, LayerDiff
from toolkit.engine.envelope import Envelope
from toolkit.engine.judge import Judgement
from toolkit.harness.capacity import Capacity, Need
from toolkit.harness.paired import PairedTest
from toolkit.harness.verdict import Verdict
from toolkit.why.result import LayerLoss, Remedy, Why

ROOT = Path(__file__).parents[2]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOR = re.compile(r"\x1b\[(?!0m|1m|2m|22m)[0-9;]*m")
PLAIN = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR", "TERM", "FORCE_COLOR")}


def on_terminal(columns: int, *arguments: object, lines: int = 24, term: str = "xterm-256color", **environment: str) -> str:
    """What a terminal of so many columns was sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    command = [sys.executable, "-m", "toolkit", *map(str, arguments)]
    env = {**PLAIN, "TERM": term, **environment}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=env) as running:
        os.close(slave)
        sent = b""
        while True:
            try:
                more = os.read(master, 65536)
            except OSError:  # how Linux says that the other side is gone
                break
            if not more:
                break
            sent += more
        running.wait(60)
    os.close(master)
    return sent.decode(errors="replace").replace("\r\n", "\n")


def on_pipe(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env={**PLAIN, **environment})


@pytest.fixture(scope="module")
def bench(results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the report's tests, in a folder with a long name."""
    path = tmp_path_factory.mktemp("a-folder-whose-name-is-long-enough-to-be-broken-where-lines-are") / "results.json"
    results.write(path)
    return path


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_fits_its_terminal_and_no_name_or_path_is_broken(columns: int, bench: Path) -> None:
    page = bench.with_name("report.html")
    shown = ESCAPE.sub("", on_terminal(columns, "report", bench, "-o", page))
    assert "…" not in shown, "a name was cut"
    for word in (str(page), "reference", "fp16*", "5.64", "100.00%"):
        assert word in shown
    lines = [line.rstrip() for line in shown.splitlines()]
    long = [line for line in lines if len(line) > columns]
    assert all(max(map(len, line.split())) > 20 for line in long), "only a word that is longer than the window may stand out"
    assert shown.strip().splitlines()[-1].endswith(str(page))


def test_a_pipe_gets_whole_lines_and_no_colors(bench: Path) -> None:
    page = bench.with_name("report.html")
    done = on_pipe("report", bench, "-o", page)
    assert "\x1b" not in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("fp32"))
    assert "5.64 [5.62, 5.65]" in line
    assert line.split()[-1] == "same"
    assert done.stdout.splitlines()[-1].startswith("Ship int8 <script>")
    assert done.stdout.splitlines()[-1].endswith(f"The page: {page}")


def test_no_color_means_none_and_color_is_there_otherwise(bench: Path) -> None:
    page = bench.with_name("report.html")
    assert COLOR.search(on_terminal(120, "report", bench, "-o", page))
    assert not COLOR.search(on_terminal(120, "report", bench, "-o", page, NO_COLOR="1"))
    dumb = on_terminal(120, "report", bench, "-o", page, term="dumb")
    assert "\x1b" not in dumb
    assert "int8" in dumb


@pytest.mark.parametrize(("columns", "term"), [(40, "xterm"), (80, "xterm"), (80, "dumb")])
def test_help_is_grouped_everywhere(columns: int, term: str) -> None:
    shown = ESCAPE.sub("", on_terminal(columns, "--help", term=term))
    assert MAKE in shown
    assert shown.index(MAKE) < shown.index("Measure and compare") < shown.index("Deploy")
    assert "..." not in shown.replace("[ARGS]...", "").replace("ARGS]...", "")
    if term == "dumb":
        assert "\x1b" not in shown
        assert "╭" not in shown
    assert max(map(len, shown.splitlines())) <= columns


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_help_is_whole_at_every_width(columns: int) -> None:
    """In few columns the boxed help cut options to `--sce…`, and everywhere it gave a flag a value."""
    shown = ESCAPE.sub("", on_terminal(columns, "bench", "--help"))
    for word in ("--scenario", "--loadgen", "--no-loadgen", "results.json]", "single-stream", "$ toolkit bench engines/built/*"):
        assert word in shown, word
    assert "…" not in shown and "<bool>" not in shown
    long = [line for line in shown.splitlines() if len(line) > columns and "$" not in line]
    assert all(max(map(len, line.split())) > 20 for line in long), "only a word that is longer than the window may stand out"


def test_brackets_in_a_help_text_are_shown() -> None:
    shown = ESCAPE.sub("", on_terminal(160, "build", "--help"))
    assert "judge each engine by the recipe's [accept]" in shown
    assert "$ toolkit build engines/fashion-resnet18-int8.toml" in shown


def test_an_example_is_one_line_on_a_dumb_terminal() -> None:
    shown = on_terminal(60, "build", "--help", term="dumb")
    assert f"    $ toolkit {GUIDE['build'][1][1]}\n" in shown and len(GUIDE["build"][1][1]) > 50


def commands() -> dict[str, object]:
    """Every command, `group command` for those of a group."""
    import typer

    found: dict[str, object] = {}
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found[name] = command
        found |= {f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()}
    return found


def test_every_command_has_a_heading_an_example_and_json() -> None:
    found = commands()
    groups = {name for name, command in found.items() if hasattr(command, "commands")}
    missing = set(found) - set(GUIDE)
    assert not missing, f"add them to toolkit/cli/guide.py: {sorted(missing)}"
    for name, command in found.items():
        if name in groups:
            continue
        options = {flag for parameter in command.params for flag in parameter.opts}  # type: ignore[attr-defined]
        assert "--json" in options or name == "serve", f"{name} has no --json"
        assert not {"-q", "-v", "--quiet", "--verbose", "--debug"} & options, f"{name} takes what stands for all commands"
        assert GUIDE[name][1], f"{name} has no example"
    documented = (ROOT / "docs/reference/json.md").read_text()
    for name in set(found) - groups - {"serve"}:
        assert f"toolkit {name}" in documented, f"docs/reference/json.md does not tell what `toolkit {name} --json` prints"


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("accuracy", (Judgement, Verdict, PairedTest, Envelope)),
        ("capacity", (Capacity, Need)),
        ("diff", (Diff, LayerDiff)),
        ("parity", (Parity, Outcome, Flip)),
        ("why", (Why, LayerLoss, Remedy)),
    ],
)
def test_every_key_that_a_command_prints_is_documented(command: str, printed: tuple[type[msgspec.Struct], ...]) -> None:
    documented = (ROOT / "docs/reference/json.md").read_text()
    [row] = [line for line in documented.splitlines() if line.startswith(f"| `toolkit {command} ")]
    told = set(re.findall(r"\w+", row))
    assert [key for kind in printed for key in kind.__struct_fields__ if key not in told] == []
    assert all(re.search(rf"\b{code}\b", documented.partition("|")[0]) for code in (0, 1, 2, UNDECIDED)), "each exit code"


def test_examples_are_commands_that_parse() -> None:
    """Each option that an example shows is there."""
    found = commands()
    for name, (_, examples) in GUIDE.items():
        for example in examples if name in found else ():
            flags = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r'"[^"]*"', "", example)))
            known = {flag for parameter in found[name].params for flag in parameter.opts}  # type: ignore[attr-defined]
            assert flags <= known, f"{example}: {flags - known}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bulid"], "Did you mean 'build'?"),
        (["cache", "cleen"], "Did you mean 'clean'?"),
        (["build", "--precison", "int8", "x"], "Did you mean --precision?"),
        (["bench", "x", "--scenario", "offine"], "--scenario': 'offine' is not one of"),
        (["bench", "x", "--scenario", "offine"], "Did you mean 'offline'?"),
        (["bench", "--scenario", "ofline", "x"], "'single-stream', 'offline', 'server'"),
        (["build"], "Missing argument"),
        (["build", "engines/fashion-resnet18-int.toml"], "Did you mean 'engines/fashion-resnet18-int8.toml'?"),
        (["build", "engine/fashion-resnet18-int8.toml"], "Did you mean 'engines/fashion-resnet18-int8.toml'?"),
    ],
)
def test_a_mistyped_word_is_one_line_with_what_was_meant(arguments: list[str], said: str) -> None:
    done = on_pipe(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_quiet_and_verbose_stand_anywhere(bench: Path) -> None:
    page = bench.with_name("report.html")
    normal, quiet, loud = (
        on_pipe("report", bench, "-o", page).stdout,
        on_pipe("--quiet", "report", bench, "-o", page).stdout,
        on_pipe("report", bench, "-v", "-o", page).stdout,
    )
    flag = "other processes used 31 % of the cores"
    assert "ended after 3 of 200 calls" in normal
    assert "ended after" not in quiet
    assert flag in loud
    assert flag not in normal
    assert quiet.splitlines()[-1] == normal.splitlines()[-1]
    assert on_pipe("run", "--", "--quiet").returncode == 2, "after -- it is an argument as any other"


def test_json_is_all_that_stdout_gets(bench: Path) -> None:
    told = json.loads(on_pipe("report", bench, "-o", bench.with_name("report.html"), "--json").stdout)
    assert [engine["name"] for engine in told["engines"]][:2] == ["reference", "fp32"]
    low, high = told["engines"][1]["intervals"]["p50_ms"]
    assert low < told["engines"][1]["p50_ms"] < high
    assert told["decision"]["engine"].startswith("int8")
    pair = next(r for r in told["ratios"] if (r["engine"], r["over"]) == ("fp32", "reference"))
    assert pair["interval"][0] < pair["times"] < pair["interval"][1]


def test_the_shell_completes_commands() -> None:
    asked = {"_TOOLKIT_COMPLETE": "complete_bash", "COMP_WORDS": "toolkit be", "COMP_CWORD": "1"}
    assert on_pipe(**asked).stdout.split() == ["bench"]


def test_notes_come_by_weight_and_fill_no_more_than_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    notes = [f"auto: choice {i}" for i in range(30)] + ["same within 0.5 points", "reference top-1 92 %", "WARNING: this"]
    console = PlainConsole(force_terminal=True, width=80, height=24, color_system=None)
    console.notes(notes, "toolkit inspect E")
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines[:3]] == ["WARNING: this", "same within 0.5 points", "reference top-1 92 %"]
    assert len(lines) < 24
    assert lines[-1].strip() == f"{33 - len(lines) + 1} more notes: toolkit inspect E"
    console.detail = "verbose"
    console.notes(notes, "")
    assert len(capsys.readouterr().out.splitlines()) == 33
    console.detail = "quiet"
    console.notes(notes, "")
    assert capsys.readouterr().out.strip() == "WARNING: this"
    assert weight("cannot tell with 60 images") == 1


def test_a_folder_of_pictures_is_its_pictures(tmp_path: Path) -> None:
    from PIL import Image

    from toolkit.errors import DataError
    from toolkit.images.folder import with_folders

    for name in ("b/2.png", "b/1.JPG", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name, "PNG")
    (tmp_path / "b/notes.txt").write_text("no image")
    single = tmp_path / "a.png"
    paths, remarks = with_folders([single, tmp_path / "b"])
    assert [path.name for path in paths] == ["a.png", "1.JPG", "2.png"]
    assert remarks == (f"{tmp_path / 'b'}: left out 1 '.txt'",)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        with_folders([tmp_path / "none"])
