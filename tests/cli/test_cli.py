"""The command line as a person meets it: exit codes, one line for a failure, JSON for machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pytest
from PIL import Image

from toolkit.cli.main import main
from toolkit.cli.measure import _at

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "engines/fashion-resnet18-int8.toml"


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell starts it."""
    command = [sys.executable, "-m", "toolkit", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "120", **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=env)


def toolkit(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has everything imported already, writing to files."""
    words = ["toolkit", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(sys, "argv", words)
        patch.chdir(ROOT)
        for name, value in {"COLUMNS": "120", **environment}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        said = [file.read() for file in (out, err) if file.seek(0) == 0]
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), *said)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    done = toolkit("build", RECIPE, "-o", out, "--no-proof")
    assert done.returncode == 0, done.stderr
    return out / "fashion-resnet18-int8"


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A failure: the exit code, and on stderr a last line that says it all, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


def test_run_names_the_classes(engine: Path, tmp_path: Path) -> None:
    from toolkit.images.dataset import open_data
    from toolkit.recipe import Recipe

    picture = open_data("packaged:fashion-test", Recipe.load(RECIPE).preprocess, 1).picture(0)
    picture.save(tmp_path / "boot.png")
    done = process("run", engine, tmp_path / "boot.png", "--json")
    answers = json.loads(done.stdout)[str(tmp_path / "boot.png")]
    assert len(answers) == 5
    assert answers[0]["label"] == "Ankle boot"
    assert "Ankle boot" in toolkit("run", engine, tmp_path / "boot.png").stdout


def test_inspect_draws_and_tells_machines(engine: Path) -> None:
    shown = toolkit("inspect", engine).stdout
    assert "placement: nothing to improve" in shown
    assert "█" in shown
    found = json.loads(toolkit("inspect", engine, "--json").stdout)
    assert found["manifest"]["precision"] == "int8+fp16"
    assert found["findings"] == []
    assert found["layers"]["Conv"] == 20


def test_describe_prints_the_stages() -> None:
    shown = toolkit("describe", "resnet50").stdout
    assert all(stage in shown for stage in ("conv1", "conv2_x", "conv5_x", "25.56"))
    one_line(toolkit("describe", "resnet19"), 2, "resnet19", "resnet152")


def test_an_unknown_key_is_exit_2(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.read_text().replace("int8 = true", "int9 = true"))
    one_line(process("build", path, "-o", tmp_path), 2, "bad.toml", "int9", "int8")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.toml"]


def test_brackets_in_a_failure_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.read_text().replace("[build]", "[build]\nfast = true"))
    one_line(toolkit("build", path, "-o", tmp_path), 2, "`fast`", "[build]")


def test_no_engine_is_exit_2(tmp_path: Path) -> None:
    one_line(toolkit("run", tmp_path, "x.png"), 2, "is not an engine", "toolkit build")


def test_a_file_that_is_no_image_is_exit_2(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    one_line(toolkit("run", engine, tmp_path / "x.png"), 2, "x.png")


def test_one_bad_image_does_not_lose_the_other_answers(engine: Path, tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a.png", "bad.png", "[b].png", "none.png")]
    for name in (names[0], names[2]):
        Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(name)
    names[1].write_bytes(b"no image")
    done = toolkit("run", engine, *names)
    assert done.returncode == 2
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [str(names[0]), str(names[2])]
    assert "2 of 4 images could not be read. The answers to the others are above" in done.stderr
    assert all(str(name) in done.stderr for name in (names[1], names[3]))
    told = toolkit("run", engine, *names, "--json")
    assert told.returncode == 2
    answers = json.loads(told.stdout)
    assert [len(answers[str(name)]) for name in (names[0], names[2])] == [5, 5]
    assert "cannot be read as an image" in answers[str(names[1])]["error"]
    assert "does not exist" in answers[str(names[3])]["error"]


def test_a_bench_that_could_not_judge_an_engine_is_no_success(engine: Path, tmp_path: Path) -> None:
    """The last picture cannot be read: latency is measured, and a job that wanted a verdict is stopped."""
    for name in map(str, range(10)):
        (folder := tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((28, 28), np.uint8)).save(folder / "x.png")
    max((tmp_path / "data").rglob("*.png")).write_bytes(b"no image")
    done = toolkit("bench", engine, "--seconds", "1", "--warmup", "0.1", "--data", tmp_path / "data", "-o", tmp_path / "r.json")
    one_line(done, 2, "x.png", "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["measurements"]


def test_the_next_command_has_the_path_of_the_engine() -> None:
    engines = [Path("built/fp32"), Path("built/int8")]
    assert _at("toolkit why int8", engines) == "toolkit why built/int8"
    assert _at("toolkit accuracy fp32 --data DIR", engines) == "toolkit accuracy built/fp32 --data DIR"
    assert _at("toolkit why why", [Path("my engines/why")]) == "toolkit why 'my engines/why'"
    assert _at("toolkit bench ENGINE... --seconds 60", engines) == "toolkit bench ENGINE... --seconds 60"


def test_an_image_of_another_mode_is_taken(engine: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "x.png")
    assert toolkit("run", engine, tmp_path / "x.png").returncode == 0


def test_a_refused_engine_is_exit_1(tmp_path: Path) -> None:
    path = tmp_path / "strict.toml"
    path.write_text(RECIPE.read_text().replace("min_agreement = 0.98", "min_agreement = 1.0\nimages = 1000"))
    one_line(process("build", path, "-o", tmp_path / "out"), 1, "refused", "toolkit tune")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a folder's permissions are another matter there")
def test_an_output_that_is_a_file_is_exit_2(tmp_path: Path) -> None:
    """A folder that cannot be made, be it for permissions or for what stands there (root may write anywhere)."""
    (tmp_path / "out").write_text("a file")
    done = toolkit("build", RECIPE, "-o", tmp_path / "out", "--no-proof")
    one_line(done, 2, "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_current_folder_that_was_deleted_is_said(tmp_path: Path) -> None:
    """Python's own libraries ask for it when they are imported."""
    line = f'mkdir gone && cd gone && rmdir ../gone && exec "{sys.executable}" -m toolkit build "{RECIPE}" -o "{tmp_path}/built"'
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    one_line(done, 2, "the current folder no longer exists")


def test_a_fault_of_our_own_is_one_line_and_not_the_code_of_a_refusal(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from toolkit.cli import main as cli

    def fault(**options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(cli, "app", fault)
    monkeypatch.setattr(sys, "argv", ["toolkit", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: internal error (ZeroDivisionError: division by zero)")
    assert said.count("\n") == 1
    monkeypatch.setattr(sys, "argv", ["toolkit", "doctor", "--debug"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
def test_ctrl_c_is_one_line_and_nothing_is_replaced(engine: Path) -> None:
    before = (engine / "manifest.json").read_bytes()
    command = [sys.executable, "-m", "toolkit", "build", str(RECIPE), "-o", str(engine.parent)]
    # A shell's background job is born deaf to Ctrl-C, and so would be its children.
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=hearing) as running:
        while running.poll() is None and not list(engine.parent.glob(f".{engine.name}.*")):
            time.sleep(0.01)  # until the draft of the new engine lies there: it is still to be compiled and proven
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 2
    assert said.strip().splitlines()[-1] == "error: stopped; what was not finished is as it was before"
    assert (engine / "manifest.json").read_bytes() == before
    assert [p.name for p in engine.parent.iterdir()] == [engine.name]


BEGIN = """
import toolkit.__main__ as entry
listen = entry._listen
def told(no_more=False):  # said once it listens: before, Ctrl-C would meet this text and not the toolkit
    listen(no_more)
    no_more or print("begun", flush=True)
entry._listen = told
entry.main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
@pytest.mark.parametrize("after", [(0.0,), (0.02,), (0.1,), (0.2,), (0.0, 0.01), (0.05, 0.08), (0.2, 0.23), (0.3, 0.31, 0.32)])
def test_ctrl_c_has_one_answer_from_the_first_moment_on(tmp_path: Path, after: tuple[float, ...]) -> None:
    command = [sys.executable, "-c", BEGIN, "build", str(RECIPE), "-o", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, preexec_fn=hearing, **pipes) as running:  # type: ignore[call-overload]
        assert running.stdout.readline() == "begun\n"
        start = time.monotonic()
        for moment in after:
            time.sleep(max(0.0, start + moment - time.monotonic()))
            running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 2, said
    assert said.strip().splitlines()[-1] == "error: stopped; what was not finished is as it was before"
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


IN_A_DESTRUCTOR = """
import signal, time
import toolkit.__main__ as entry
entry._listen()
class Late:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
try:
    Late()
    time.sleep(10)
    print("lost")
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
def test_ctrl_c_in_a_destructor_is_not_lost() -> None:
    """Python drops it there, as in the callbacks of an import: one Ctrl-C of many did nothing, and the build went on."""
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background is started deaf
    command = [sys.executable, "-c", IN_A_DESTRUCTOR]
    done = subprocess.run(command, preexec_fn=hearing, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.stdout, done.stderr) == ("heard\n", "")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = process("--debug", "run", tmp_path, "x.png")
    assert "Traceback" in done.stderr


def test_the_readme_commands_are_there() -> None:
    shown = toolkit("--help").stdout
    for command in (
        "export",
        "calibrate",
        "build",
        "run",
        "accuracy",
        "bench",
        "tune",
        "compare",
        "report",
        "inspect",
        "doctor",
        "describe",
    ):
        assert command in shown
