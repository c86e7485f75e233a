"""An engine carried away: packed, moved, damaged, judged where neither its reference nor its images are."""

from __future__ import annotations

import errno
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from contextlib import nullcontext
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

import toolkit
from toolkit import orders
from toolkit.disk import folders
from toolkit.engine import layout
from toolkit.engine.answers import decode, encode
from toolkit.engine.engine import Engine
from toolkit.engine.judge import images_of
from toolkit.engine.locations import placeless, portable
from toolkit.errors import DataError, EngineError
from toolkit.images.dataset import open_data
from toolkit.manifest import MANIFEST, Manifest
from toolkit.recipe import Accept, Recipe, Reference

FASHION = Path(__file__).parents[2] / "engines" / "fashion-resnet18-int8.toml"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, pictures in class folders, and a recipe of INT8 that names them."""
    root = tmp_path_factory.mktemp("workshop")
    images = open_data("packaged:fashion-test", Recipe.load(FASHION).preprocess, 24)
    assert images.labels is not None
    assert images.classes is not None
    for index, label in enumerate(images.labels):
        folder = root / "val" / images.classes[label].replace("/", "-").lower()
        folder.mkdir(parents=True, exist_ok=True)
        images.picture(index).save(folder / f"{index}.png")
    names = [name.replace("/", "-").lower() for name in images.classes]
    (root / "classes.txt").write_text("\n".join(names))
    shutil.copy(Path(toolkit.__file__).parent / "packaged" / "fashion-resnet18.safetensors", root / "weights.safetensors")
    text = FASHION.read_text().replace("packaged:fashion-resnet18", "weights.safetensors")
    text = text.replace("packaged:fashion-train", "val").replace("packaged:fashion-test", "val")
    text = text.replace('"packaged:fashion"', '"classes.txt"')
    (root / "mine.toml").write_text(text)
    return root


@pytest.fixture(scope="module")
def built(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe.load(workshop / "mine.toml")
    recipe = msgspec.structs.replace(recipe, accept=loose(recipe), notes=(f"as measured on {workshop / 'val'}",))
    [(folder, _)] = orders.build_all([recipe], None, tmp_path_factory.mktemp("built"))
    return folder


def loose(recipe: Recipe) -> object:
    """A margin that two dozen images can show."""
    return msgspec.structs.replace(recipe.accept, max_top1_drop=30.0, min_agreement=0.5)


@pytest.fixture
def carried(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine on another machine: another folder, and no cache that knows where it was built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(built, tmp_path / "elsewhere" / "engine")
    return tmp_path / "elsewhere" / "engine"


def test_no_file_of_it_names_the_machine(built: Path, workshop: Path) -> None:
    words = [str(workshop), str(built.parent), os.getcwd(), str(Path.home())]
    words += [f"/{getpass.getuser()}/", socket.gethostname()]
    for path in built.iterdir():
        data = path.read_bytes()
        assert [word for word in words if len(word) > 3 and word.encode() in data] == [], path.name
    card = Manifest.read(built).recipe
    assert (card["reference"]["weights"], card["accept"]["data"]) == ("weights.safetensors", "val")


def test_paths_that_share_no_folder_are_names(tmp_path: Path) -> None:
    recipe = Recipe.parse('name = "x"\n[reference]\nonnx = "/srv/models/a.onnx"\n[accept]\ndata = "/home/someone/val"')
    card = portable(recipe)
    assert (card["reference"]["onnx"], card["accept"]["data"]) == ("a.onnx", "val")
    alone = portable(Recipe.parse('name = "x"\n[reference]\nonnx = "/home/someone/a.onnx"'))
    assert alone["reference"]["onnx"] == "a.onnx"


def test_a_note_about_a_file_names_no_place() -> None:
    reference, accept = Reference(onnx="/home/ann/m/a.onnx"), Accept(data="/home/ann/w/val")
    recipe = Recipe(name="x", reference=reference, accept=accept, notes=("tuned on /home/ann/w/val",))
    assert placeless("classes after /home/ann/w/val, and as /home/ann/m/labels.txt has them", recipe) == (
        "classes after w/val, and as m/labels.txt has them"
    )
    assert portable(recipe)["notes"] == ["tuned on w/val"]
    apart = msgspec.structs.replace(recipe, accept=Accept(data="/srv/val"))
    assert placeless("/home/ann/m/a.onnx on /srv/val, 1/2 of it", apart) == "a.onnx on val, 1/2 of it"
    root = msgspec.structs.replace(recipe, reference=Reference(onnx="/a.onnx"), accept=Accept())
    assert placeless("1/2 of /a.onnx", root) == "1/2 of /a.onnx"


def test_names_of_tensors_are_no_paths() -> None:
    """PyTorch's begin with a slash."""
    text = 'name = "x"\n[reference]\nonnx = "/srv/models/a.onnx"\noutput = "/fc/Gemm_output_0"\ninput = "/images"'
    assert portable(Recipe.parse(text))["reference"] == {"onnx": "a.onnx", "output": "/fc/Gemm_output_0", "input": "/images"}


def test_it_runs_is_judged_and_told_where_nothing_else_is(carried: Path, workshop: Path) -> None:
    engine = Engine.open(carried)
    there = engine.judge()
    assert there.verdict is None
    assert there.accepted
    assert "not on this machine; this is the verdict of the build" in there.how
    given = engine.judge(workshop / "val")
    assert given.how == "measured"
    assert given.verdict is not None
    assert there.stored is not None
    for field in ("agreement", "top1", "top5", "disagreements", "test", "images", "word"):
        assert getattr(given.verdict, field) == getattr(there.stored.verdict, field), field
    assert given.verdict.mean_logit_error == pytest.approx(there.stored.verdict.mean_logit_error, rel=0.01)
    assert any("all 24 of them" in remark for remark in given.remarks)
    found = engine.inspect()
    assert found.layers["QLinearConv" if "QLinearConv" in found.layers else "Conv"] >= 20
    assert found.ranges is not None
    assert engine.manifest.baseline is not None
    assert engine.manifest.baseline.images == 24
    assert engine.manifest.baseline.latency is not None
    with engine.runner() as runner:
        assert runner(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 10)


def test_a_part_of_the_images_in_another_order_is_judged_too(carried: Path, workshop: Path, tmp_path: Path) -> None:
    some = sorted((workshop / "val").glob("*/*.png"))[:9]
    for index, path in enumerate(some):
        folder = tmp_path / "some" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{len(some) - index}.png")
    found = Engine.open(carried).judge(tmp_path / "some")
    assert found.verdict is not None
    assert found.verdict.images == 9


def test_other_images_give_its_own_accuracy_and_the_builds_verdict(carried: Path, workshop: Path, tmp_path: Path) -> None:
    from PIL import Image

    for path in sorted((workshop / "val").glob("*/*.png"))[:6]:
        folder = tmp_path / "new" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / path.name)
    found = Engine.open(carried).judge(tmp_path / "new")
    assert found.verdict is None
    assert found.stored is not None
    assert found.top1 is not None
    assert "carries no answers to these images" in str(found)


def test_it_packs_and_runs_from_one_file(built: Path, tmp_path: Path) -> None:
    packed = Engine.open(built).pack(tmp_path / "x.engine")
    again = Engine.open(built).pack(tmp_path / "y.engine")
    assert packed.read_bytes() == again.read_bytes()
    assert {entry.compress_type for entry in zipfile.ZipFile(packed).infolist()} == {zipfile.ZIP_STORED}
    batch = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
    with toolkit.load(packed) as one, toolkit.load(built) as other:
        np.testing.assert_array_equal(one(batch), other(batch))
        one.reopen()
        np.testing.assert_array_equal(one(batch), other(batch))
    assert Engine.open(packed).manifest == Engine.open(built).manifest


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "ranges.json", "layers.json", "answers.npz", "verdict.json"])
def test_a_flipped_bit_is_found_by_name(carried: Path, name: str) -> None:
    data = bytearray((carried / name).read_bytes())
    for place in (0, len(data) // 3, len(data) - 2):
        data[place] ^= 4
        (carried / name).write_bytes(data)
        with pytest.raises(EngineError, match=name.replace(".", r"\.")):
            toolkit.load(carried)
        data[place] ^= 4


def test_a_flipped_bit_is_found_anywhere_in_a_packed_engine(built: Path, tmp_path: Path) -> None:
    """Headers, directory and end hold nothing that a library would miss: dates, attributes, numbers of disks."""
    packed = Engine.open(built).pack(tmp_path / "x.engine")
    data = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        second, start = archive.infolist()[1].header_offset, archive.start_dir
    for place in (*range(30), *range(second, second + 30), *range(start, len(data), 7), *range(len(data) - 90, len(data))):
        data[place] ^= 1 << place % 8
        packed.write_bytes(data)
        with pytest.raises(EngineError, match=r"x\.engine"):
            Engine.open(packed)
        data[place] ^= 1 << place % 8
    packed.write_bytes(data)
    assert Engine.open(packed).name == Engine.open(built).name
    assert Engine.open(repack(packed, list)).name == Engine.open(built).name  # another program packed it, and says nothing


def repack(packed: Path, change) -> Path:
    """The packed file's members, (name, bytes), changed by `change` and written anew."""
    with zipfile.ZipFile(packed) as archive:
        members = [(zipfile.ZipInfo(name), archive.read(name)) for name in archive.namelist()]
    target = packed.with_name("changed.engine")
    doubled = pytest.warns(UserWarning, match="Duplicate name") if change is twice else nullcontext()
    with doubled, zipfile.ZipFile(target, "w") as archive:
        for info, data in change(members):
            archive.writestr(info, data)
    return target


def twice(members):
    return [*members, members[-1]]


def linked(members):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    return [*members, (info, b"/etc/passwd")]


CHANGES = {
    "../x": (lambda members: [*members, (zipfile.ZipInfo("../x"), b"x")], "names a file outside itself"),
    "extra": (lambda members: [*members, (zipfile.ZipInfo("readme"), b"x")], "does not list: 'readme'"),
    "twice": (twice, "holds 'verdict.json' twice"),
    "link": (linked, "not a regular file"),
    "missing": (lambda members: members[:-1], "has no file 'verdict.json'"),
    "no manifest": (lambda members: members[1:], "no manifest.json"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_packed_file_with_another_member_is_refused(built: Path, tmp_path: Path, kind: str) -> None:
    packed = Engine.open(built).pack(tmp_path / "x.engine")
    change, words = CHANGES[kind]
    with pytest.raises(EngineError, match=words.replace(".", r"\.")):
        toolkit.load(repack(packed, change))


def test_a_packed_file_cut_short_is_refused(built: Path, tmp_path: Path) -> None:
    packed = Engine.open(built).pack(tmp_path / "x.engine")
    data = packed.read_bytes()
    for cut in (*range(0, len(data), len(data) // 20), len(data) - 100):
        packed.write_bytes(data[:cut])
        with pytest.raises(EngineError, match="not a packed engine, or is damaged"):
            toolkit.load(packed)


def test_a_folder_that_is_none_half_or_of_tomorrow(carried: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file or folder"):
        Engine.open(tmp_path / "nowhere")
    with pytest.raises(EngineError, match="is not an engine"):
        Engine.open(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(EngineError, match=r"no such file or folder\. Build one"):  # and not: did you mean this very name
        Engine.open(tmp_path / "link")
    (carried / "ranges.json").unlink()
    with pytest.raises(EngineError, match=r"no file 'ranges\.json', which its manifest lists"):
        Engine.open(carried)
    card = json.loads((carried / MANIFEST).read_bytes())
    (carried / MANIFEST).write_text(json.dumps({**card, "version": 3}))
    with pytest.raises(EngineError, match="format version 3, this toolkit reads 1 and 2"):
        Engine.open(carried)


def test_a_pipe_in_its_place_does_not_block(carried: Path) -> None:
    (carried / "model.onnx").unlink()
    os.mkfifo(carried / "model.onnx")
    with pytest.raises(EngineError, match="not a regular file"):
        Engine.open(carried)


def test_it_is_read_from_a_folder_that_cannot_be_written(carried: Path) -> None:
    for path in (*carried.iterdir(), carried):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with toolkit.load(carried) as runner:
        assert runner.manifest.name == "fashion-resnet18-int8"


def test_a_folder_replaced_while_it_is_read_is_read_whole(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the manifest and the next file another engine takes the name, and the first is deleted."""
    folder, spare = tmp_path / "engine", tmp_path / "spare"
    shutil.copytree(built, folder)
    shutil.copytree(built, spare)
    card = msgspec.structs.replace(Manifest.read(spare), notes=("the other one",))
    (spare / "ranges.json").write_text("{}")
    card.write(spare)
    read, done = layout._read_regular, []

    def swap(where: Path, handle: int | None, name: str, limit: int) -> bytes:
        if name != MANIFEST and not done:
            done.append(name)
            os.rename(folder, tmp_path / "old")
            os.rename(spare, folder)
            shutil.rmtree(tmp_path / "old")
        return read(where, handle, name, limit)

    monkeypatch.setattr(layout, "_read_regular", swap)
    engine = Engine.open(folder)
    assert engine.manifest.notes == ("the other one",)
    assert engine.contents["ranges.json"] == b"{}"


def test_a_folder_that_is_filled_anew_is_read_whole(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount cannot be renamed: its files are replaced one by one, by way of a whole copy inside it, while others read."""

    def stuck(one: Path, other: Path) -> bool:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    folder, over, wrong = tmp_path / "engine", threading.Event(), list[BaseException]()
    shutil.copytree(built, folder)
    notes = {f"generation {number}" for number in range(24)}
    kept = {Manifest.read(built).notes, *((note,) for note in notes)}

    def read() -> None:
        while not over.is_set():
            try:
                assert Engine.open(folder).manifest.notes in kept
            except BaseException as error:
                wrong.append(error)

    monkeypatch.setattr(folders, "_exchange", stuck)
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for note in sorted(notes):
            with folders.new_folder(folder) as draft:
                shutil.copytree(built, draft, dirs_exist_ok=True)
                (draft / "ranges.json").write_text("{}" + " " * len(note))
                msgspec.structs.replace(Manifest.read(built), notes=(note,)).write(draft)
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert wrong == []


def test_a_packed_engine_is_measured_by_the_file_that_was_opened(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is read a smaller one takes its name."""
    whole = Engine.open(built).pack(tmp_path / "x.engine")
    size, names = whole.stat().st_size, layout._refuse_member

    def replaced(path: Path, entry: zipfile.ZipInfo) -> None:
        (tmp_path / "y.engine").write_bytes(b"")
        os.replace(tmp_path / "y.engine", whole)
        names(path, entry)

    monkeypatch.setattr(layout, "_refuse_member", replaced)
    assert sum(map(len, Engine.open(whole).contents.values())) < size


def test_answers_keep_their_order_and_their_size() -> None:
    random = np.random.default_rng(3)
    logits = (random.normal(size=(50, 1000)) * 10).astype(np.float32)
    logits[:, 7] = np.nextafter(logits[:, 3], np.float32(np.inf))  # equal once rounded
    logits[0] = 0
    digests = random.integers(0, 1 << 63, 50).astype(np.uint64)
    data = encode(logits, digests)
    assert data == encode(logits, digests)
    kept = decode(data)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(np.argsort(-kept.logits, axis=1, kind="stable")[:, :5], order)
    error = np.abs(kept.logits - logits).max(axis=1)
    assert (error <= np.abs(logits).max(axis=1) / 32767 + 1e-6).all()
    assert len(data) < logits.nbytes * 0.55
    rows, some = kept.of(np.array([digests[4], 1, digests[2]], np.uint64))
    np.testing.assert_array_equal(rows, [0, 2])
    np.testing.assert_array_equal(some, kept.logits[[4, 2]])


def test_yesterdays_engine_loads_with_a_word() -> None:
    """Built by toolkit 0.1: format version 1."""
    golden = Path(__file__).parent / "golden" / "version-1"
    engine = Engine.open(golden)
    assert engine.manifest.version == 1
    assert any("carries no answers of its reference" in remark for remark in engine.remarks)
    with engine.runner(threads=1) as runner:
        logits = runner(np.load(golden.parent / "version-1-batch.npy"))
    np.testing.assert_allclose(logits, np.load(golden.parent / "version-1-logits.npy"), atol=1e-4)
    assert engine.inspect().layers["Conv"] == 20
    with pytest.raises(EngineError, match="older format"):
        engine.pack("never.engine")


@pytest.mark.parametrize("folders", [["0", "10"], [f"c{i}" for i in range(11)], [f"c{i}" for i in range(4)]])
def test_folders_that_are_no_classes_of_an_engine_are_refused(golden: Engine, tmp_path: Path, folders: list[str]) -> None:
    """As at build: one more than it has classes ended in an IndexError, and fewer stood for other classes than their own."""
    nameless = Engine(golden.path, msgspec.structs.replace(golden.manifest, classes=None), golden.contents)
    for folder in folders:
        (tmp_path / "val" / folder).mkdir(parents=True)
        Image.new("L", (28, 28)).save(tmp_path / "val" / folder / "a.png")
    said = r"has (the label 10|\d+ class folders), and .*-int8 answers (the classes 0 to 9|10 classes)"
    with pytest.raises(DataError, match=said):
        images_of(nameless, str(tmp_path / "val"))


BARE = """
import sys
sys.modules |= dict.fromkeys(["torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "numba"])  # none can be imported
from toolkit.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["inspect", "{engine}"], "QuantizeLinear"),
        (["inspect", "{engine}", "--json"], '"layers"'),
        (["accuracy", "{engine}"], "this is the verdict of the build"),
        (["accuracy", "{engine}", "--data", "{val}"], "accepted. same within"),
        (["bench", "{engine}", "--data", "{val}", "--seconds", "1", "--warmup", "0.1", "-o", "{out}/r.json"], "Next: "),
        (["report", "{out}/r.json", "-o", "{out}/r.html"], "The page:"),
        (["run", "{engine}", "{picture}"], "%"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_work_where_only_a_backend_is_installed(
    built: Path, workshop: Path, tmp_path_factory: pytest.TempPathFactory, command: list[str], words: str
) -> None:
    out = tmp_path_factory.getbasetemp() / "bare"
    out.mkdir(exist_ok=True)
    if not (out / "engine").exists():
        shutil.copytree(built, out / "engine")
    picture = next((workshop / "val").glob("*/*.png"))
    places = {"engine": out / "engine", "val": workshop / "val", "out": out, "picture": picture}
    arguments = [part.format(**places) for part in command]
    environment = {**os.environ, "XDG_CACHE_HOME": str(out / "cache"), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, env=environment, cwd=out)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
