"""An engine from a stranger, sealed as it should be: what its manifest may name, and what is refused before it is used."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import toolkit
from tests.fuzz.bounds import bounds
from tests.fuzz.engines import tiny
from toolkit.calibration import Ranges
from toolkit.diff import diff
from toolkit.disk.files import sha256_bytes
from toolkit.engine.answers import encode
from toolkit.engine.engine import Engine
from toolkit.engine.layout import read_manifest
from toolkit.engine.locations import is_here, recipe_of, require_reference
from toolkit.errors import CalibrationError, DataError, EngineError, ToolkitError, WeightsError
from toolkit.manifest import MANIFEST, UNSEALED, Manifest
from toolkit.recipe import Recipe, Reference
from toolkit.reference.published import CHECKPOINTS
from toolkit.reference.weights.load import load_reference
from toolkit.report.engine_page import engine_page
from toolkit.report.inspection import cuts
from toolkit.types import quiet
from toolkit.why.subject import _trip

Card = dict[str, Any]


def resealed(folder: Path, change: Callable[[Card], object]) -> Path:
    """The engine in `folder` with another manifest, under a seal that fits it."""
    card = json.loads((folder / MANIFEST).read_bytes())
    change(card)
    text = msgspec.json.format(json.dumps(card | {"seal": UNSEALED}).encode(), indent=1)
    (folder / MANIFEST).write_bytes(text.replace(f'"seal": "{UNSEALED}"'.encode(), f'"seal": "{sha256_bytes(text)}"'.encode()))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/tmp/x",
        "a/b",
        "a\\b",
        "..",
        "",
        "-rf",
        "a b",
        'x"\nimport os',
        "\x1b[2J",
        "<b>",
        "a\0b",
        "{file}",
        "\u202eab",
        "x" * 201,
    ],
)
def test_a_name_is_one_that_a_folder_and_a_script_can_bear(tmp_path: Path, name: str) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card.update(name=name))
    with pytest.raises(EngineError, match="a name is letters, digits, dots, dashes and underscores"):
        Engine.open(folder)


def test_the_longest_name_that_is_taken(tmp_path: Path) -> None:
    name = "x" * 200
    assert Engine.open(resealed(tiny(tmp_path / "engine"), lambda card: card.update(name=name))).name == name


@pytest.mark.parametrize("name", ["a\0b", "", "..", "../x", "/dev/zero"])
def test_files_lie_in_the_engines_own_folder(tmp_path: Path, name: str) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["files"].update({name: "0" * 64}))
    with pytest.raises(EngineError, match="names a file outside itself"):
        Engine.open(folder)


@pytest.mark.parametrize("inputs", [0, 2])
def test_an_engine_has_one_input(tmp_path: Path, inputs: int) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card.update(inputs=card["inputs"] * inputs))
    with pytest.raises(EngineError, match="an engine has one input"):
        Engine.open(folder)


@pytest.mark.parametrize("threads", ["x", None, 0, -1, 1.5, 10**9])
def test_settings_are_checked_before_anything_is_made_of_them(tmp_path: Path, threads: object) -> None:
    """A handoff writes them, and Ray books cores by them, without a runner."""
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["settings"].update(threads=threads))
    with pytest.raises(EngineError, match=r"the settings of tiny: `threads` = "):
        Engine.open(folder)


@pytest.mark.parametrize("change", [{"seal": "../../x"}, {"files": {"model.onnx": "0" * 64}}])
def test_the_first_format_had_no_seal(change: Card) -> None:
    card = json.loads((Path(__file__).parent / "golden/version-1/manifest.json").read_bytes())
    with pytest.raises(EngineError, match="format version 1 has neither a seal"):
        Manifest.decode(json.dumps(card | change).encode(), "x")


@pytest.mark.parametrize("read", [Manifest.read, Engine.open])
def test_a_manifest_that_is_a_pipe_or_larger_than_any_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """As a server looks at it again and again: it must neither wait nor read without end."""
    folder = tmp_path / "engine"
    folder.mkdir()
    os.mkfifo(folder / MANIFEST)
    with pytest.raises(EngineError, match="not a regular file"):
        read(folder)
    (folder / MANIFEST).unlink()
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)  # of holes
    with pytest.raises(EngineError, match="larger than"):
        read(folder)


def test_a_packed_engine_of_many_members_is_refused_at_once(tmp_path: Path) -> None:
    """To compare each name with every other took a minute for a file of 2 MB."""
    with zipfile.ZipFile(tmp_path / "x.engine", "w") as archive:
        for index in range(30_000):
            archive.writestr(zipfile.ZipInfo(str(index)), b"")
    with bounds(), pytest.raises(EngineError, match=r"it has no manifest\.json"):
        Engine.open(tmp_path / "x.engine")


def test_a_manifest_that_grows_when_it_is_read_is_refused_wherever_it_is_read(tmp_path: Path) -> None:
    """A server that watches a packed engine reads the manifest alone, again and again: a gigabyte of a file of one megabyte."""
    with zipfile.ZipFile(tmp_path / "x.engine", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b" " * (1 << 20))
    for reading in (Engine.open, read_manifest):
        with pytest.raises(EngineError, match=r"holds 'manifest\.json' compressed"):
            reading(tmp_path / "x.engine")


def with_file(folder: Path, name: str, data: bytes) -> Path:
    """The engine with another file, under hashes that fit it."""
    (folder / name).write_bytes(data)
    fits: Card = {"files": {name: sha256_bytes(data)}, "hashes": {"file": sha256_bytes(data)} if name == "model.onnx" else {}}
    return resealed(folder, lambda card: [card[key].update(more) for key, more in fits.items()])


def test_weights_that_lie_in_no_file_of_the_engine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime takes them from the current folder: a key that lies there would come out as answers."""
    import onnx

    folder = tiny(tmp_path / "engine")
    model = onnx.load(folder / "model.onnx")
    secret = model.graph.initializer.add(name="secret", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    secret.external_data.add(key="location", value="secret.bin")
    model.graph.node[0].output[0] = "mean"
    model.graph.node.add(op_type="Add", input=["mean", "secret"], output=["logits"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"private keys")
    with pytest.raises(EngineError, match="keeps weights in another file"):
        Engine.open(with_file(folder, "model.onnx", model.SerializeToString()))


KEYS = [("accept", "data"), ("calibration", "data"), ("calibration", "ranges"), ("reference", "onnx"), ("reference", "classes")]


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_recipe_from_elsewhere_names_no_file_of_this_machine(tmp_path: Path, table: str, key: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a\nb\nc\n")
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["recipe"].setdefault(table, {}).update({key: str(secret)}))
    engine = Engine.open(folder)
    with pytest.raises(EngineError, match="names a file of a machine"):
        _ = engine.recipe


@pytest.mark.parametrize("spec", ["images", "../images", "x:images", "C:images"])
def test_a_relative_path_in_a_recipe_from_elsewhere_is_not_looked_for(spec: str) -> None:
    assert not is_here(spec)
    assert is_here("packaged:fashion-test")


def test_a_recipe_from_elsewhere_has_nothing_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging and measuring ask for the reference, which may be a published checkpoint: one that is here, or none."""
    asked, spec = [], "torchvision:IMAGENET1K_V1"

    def look_up(*given: object, **more: object) -> object:
        asked.append(given)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reference = {"arch": "resnet18", "weights": spec}
    engine = Engine.open(resealed(tiny(tmp_path / "engine"), lambda card: card["recipe"].update(reference=reference)))
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 8, 8), np.float32))
    said = "nothing is downloaded for the recipe inside an engine"
    assert said in str(engine.judge(tmp_path / "x.npy"))
    measured = toolkit.bench(engine, seconds=0.2, batches=[1])
    assert said in measured.failures["reference"]
    assert said in _trip(engine, quiet)[1][0]
    assert asked == []
    with pytest.raises(WeightsError, match="cannot download"):  # a recipe of one's own has it downloaded
        load_reference(Reference(arch="resnet18", weights=spec))
    assert asked


def test_a_published_checkpoint_that_is_here_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = Recipe(name="x", reference=Reference(arch="resnet18", weights="torchvision:IMAGENET1K_V1"))
    with pytest.raises(DataError, match="is not in this machine's cache"):
        require_reference(recipe)
    (tmp_path / "resnet-deploy").mkdir()
    (tmp_path / "resnet-deploy" / CHECKPOINTS["resnet18", "IMAGENET1K_V1"]).write_bytes(b"its content is checked when it is read")
    require_reference(recipe)


def test_pictures_become_what_the_engine_takes(tmp_path: Path) -> None:
    """A picture of 8 x 8 would become one of 0.8 GB before the runner said that it takes another; beyond that none is made."""
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["preprocess"].update(size=[1 << 13, 1 << 13]))
    with pytest.raises(EngineError, match=r"its pictures become \[3, 8192, 8192\], and it takes \[3, 8, 8\]"):
        Engine.open(folder)

    def vast(card: Card) -> None:
        card["preprocess"].update(size=[1 << 14, 1 << 14])
        card["inputs"][0].update(shape=["N", 3, 1 << 14, 1 << 14])

    with pytest.raises(EngineError, match=r"`size` must have at most 67,108,864 pixels"):
        Engine.open(resealed(tiny(tmp_path / "vast"), vast))


@pytest.mark.parametrize("change", [{"size": [8, 1]}, {"size": [8, 8], "mean": [0, 0, 0]}, {}])
def test_a_recipe_that_prepares_other_pictures_is_refused(tmp_path: Path, change: Card) -> None:
    """It was judged on the pictures of its recipe's preprocessing, and ran on those of its own; `diff` ended in ONNX Runtime."""
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["recipe"].update(preprocess=change))
    engine = Engine.open(folder)
    words = "the recipe of tiny preprocesses pictures in another way than its manifest says"
    for use in (lambda: engine.recipe, engine.judge, lambda: diff(folder, tiny(tmp_path / "other"), seconds=0)):
        with pytest.raises(EngineError, match=words):
            use()


def test_few_large_pictures_are_read_ahead(tmp_path: Path) -> None:
    def large(card: Card) -> None:
        card["preprocess"].update(size=[4096, 4096])
        card["inputs"][0].update(shape=["N", 3, 4096, 4096])

    with toolkit.load(resealed(tiny(tmp_path / "engine"), large)) as runner:
        assert runner._ahead == 1
    with toolkit.load(tiny(tmp_path / "small")) as runner:
        assert runner._ahead == 64


def test_no_batch_is_made_up_whatever_its_size(tmp_path: Path) -> None:
    with bounds(), pytest.raises(ToolkitError, match=r"a batch of 16777216 images takes 12\.9 GB"):
        toolkit.bench(tiny(tmp_path / "engine"), seconds=0.1, batches=[1 << 24])


def test_random_weights_that_a_recipe_asks_for_are_not_made_up_whatever_their_size() -> None:
    with bounds(), pytest.raises(WeightsError, match=r"a resnet152 of width 64 has \d+ GB of weights"):
        load_reference(Reference(arch="resnet152", weights="random:0", width=64))


@pytest.mark.parametrize("seal", ["../../secret", "/secret", "", "a" * 63])
def test_results_name_no_other_record_by_their_seal(tmp_path: Path, seal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    card = {"name": "x", "reference": {"onnx": "model.onnx"}}
    (tmp_path / "resnet-deploy/built").mkdir(parents=True)
    if not seal.startswith("/"):
        (tmp_path / f"resnet-deploy/built/{seal}.json").write_text(json.dumps({**card, "name": "secret"}))
    assert recipe_of(card, seal, "x").name == "x"


@pytest.mark.parametrize("name", ["model.onnx", "ranges.json", "layers.json"])
def test_a_file_of_holes_is_refused_before_it_takes_memory(tmp_path: Path, name: str) -> None:
    folder = tiny(tmp_path / "engine")
    os.truncate(folder / name, 1 << 40)
    with bounds(), pytest.raises(EngineError, match="larger than"):
        Engine.open(folder)


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """Each holds all that come after it: a file of megabytes would be terabytes."""
    path = tmp_path / "x.engine"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (MANIFEST, "a", "b"):
            archive.writestr(zipfile.ZipInfo(name), bytes(100))
        inner = archive.getinfo("b")
        archive.filelist = [copy(inner) for _ in range(9)]
        for number, member in enumerate(archive.filelist):
            member.filename = str(number) if number else MANIFEST
    with pytest.raises(EngineError, match="lie over each other"):
        Engine.open(path)


def test_a_verdict_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    engine = Engine.open(with_file(tiny(tmp_path / "engine"), "verdict.json", b'{"x":' + b"[" * 100_000))
    with pytest.raises(EngineError, match=r"verdict\.json of .* cannot be read"):
        _ = engine.proof


def test_stored_answers_have_the_columns_of_the_engine(tmp_path: Path) -> None:
    data = encode(np.ones((2, 4), np.float32), np.arange(2, dtype=np.uint64))
    engine = Engine.open(with_file(tiny(tmp_path / "engine"), "answers.npz", data))
    with pytest.raises(EngineError, match="the stored answers have 4 columns, those of tiny 3"):
        _ = engine.answers


@pytest.mark.parametrize("shape", [[], ["N"], ["N", "x"], ["N", 3, 1], [3]])
def test_answers_have_columns_that_are_known(tmp_path: Path, shape: list[object]) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["outputs"][0].update(shape=shape))
    with pytest.raises(EngineError, match=r"answers are \[N, classes\]"):
        Engine.open(folder)


def test_a_recipe_of_other_types_is_no_fault_of_the_page(tmp_path: Path) -> None:
    folder = resealed(tiny(tmp_path / "engine"), lambda card: card["recipe"].update(calibration="x"))
    assert "<html" in engine_page(Engine.open(folder).inspect(), ())


def test_a_range_beyond_any_float32_is_refused_and_one_beyond_its_tensor_is_drawn(tmp_path: Path) -> None:
    ranges = json.loads((Path(__file__).parent / "golden/version-1/ranges.json").read_bytes())
    first = next(iter(ranges["tensors"].values()))
    first |= {"min": 0.0, "max": 1e-300, "bars": [1] * 64, "thresholds": {"minmax": 3e38}}
    engine = Engine.open(with_file(tiny(tmp_path / "engine"), "ranges.json", json.dumps(ranges).encode()))
    assert engine.ranges is not None
    assert cuts(next(iter(engine.ranges.tensors.values()))).endswith("m")
    first["thresholds"]["minmax"] = 1e39
    with pytest.raises(CalibrationError, match="a range is one of float32 values"):
        Ranges.decode(json.dumps(ranges).encode(), "x")
