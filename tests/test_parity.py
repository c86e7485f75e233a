"""What another decoder or resize changes: on pictures whose fine grain decides the answer, so that filtering shows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from toolkit.cli.main import main
from toolkit.decoding import Outcome, Parity, parity
from toolkit.disk.files import sha256
from toolkit.engine.engine import Engine
from toolkit.errors import BackendError, DataError, InputError
from toolkit.graph.resize import resize
from toolkit.harness.paired import share_interval
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess, Recipe
from toolkit.types import TensorSpec

HOW = Preprocess(size=(32, 32), resize=36, mean=(0.0,) * 3, std=(1.0,) * 3)
node = helper.make_node


def make(folder: Path, how: Preprocess) -> Engine:
    """`grain` where a pixel differs from its neighborhood by more than 0.06 on average, else `smooth`."""
    folder.mkdir(parents=True)
    taken = ["N", *(how.pixel_shape if how.inside else how.input_shape)]
    kind = TensorProto.UINT8 if how.inside else TensorProto.FLOAT
    start = [node("Identity", ["images"], ["x"])]
    if how.inside:
        start = [node("Cast", ["images"], ["f"], to=TensorProto.FLOAT), node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2])]
        start.append(node("Mul", ["t", "scale"], ["x"]))
    nodes = [
        *start,
        node("AveragePool", ["x"], ["mean"], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0),
        node("Sub", ["x", "mean"], ["rest"]),
        node("Abs", ["rest"], ["size"]),
        node("GlobalAveragePool", ["size"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w", "b"], ["logits"]),
    ]
    weights = {"w": [[1 / 3, 0]] * 3, "b": [0, 0.06], "scale": 1 / 255}
    tensors = [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in weights.items()]
    x = helper.make_tensor_value_info("images", kind, taken)
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    dtype = "uint8" if how.inside else "float32"
    Manifest(
        name="grain", target="cpu", file="model.onnx", precision="fp32", preprocess=how, classes=("grain", "smooth"),
        inputs=(TensorSpec(name="images", dtype=dtype, shape=tuple(taken)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 2)),),
        profiles=(Profile(min=1, opt=1, max=8),), hashes={"file": sha256(folder / "model.onnx")}, settings={"threads": 1},
        recipe={"name": "grain", "reference": {"onnx": "model.onnx"}, "preprocess": msgspec.to_builtins(how)},
    ).write(folder)  # fmt: skip
    return Engine.open(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, which a filter takes away, under its right name `smooth`; and squares, which are grain to anyone."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for index in range(6):
        fine = random.integers(0, 256, (200, 260, 3), np.uint8)
        coarse = np.kron(random.integers(0, 2, (20, 26, 1), np.uint8) * np.uint8(255), np.ones((10, 10, 3), np.uint8))
        for name, pixels in (("smooth", fine), ("grain", coarse)):
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / name / f"{index}.jpg", quality=95)
    return root


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make(tmp_path_factory.mktemp("engine") / "x", HOW)


@pytest.fixture(scope="module")
def found(engine: Engine, pictures: Path) -> Parity:
    return parity(engine, data=pictures, only=["pillow", "onnx", "opencv"])


def by_name(found: Parity) -> dict[str, Outcome]:
    return {one.way: one for one in found.outcomes}


def test_who_does_not_filter_changes_every_noisy_picture(found: Parity) -> None:
    ways = by_name(found)
    assert (found.images, found.labeled, found.how) == (12, True, "measured")
    for name in ("pillow-nearest", "pillow-no-antialias"):
        one = ways[name]
        assert one.changed == 6, name
        assert not one.accepted
        assert {flip.before for flip in one.flips} == {"smooth"} == {flip.label for flip in one.flips}
        assert all("smooth" in flip.image for flip in one.flips)
        low, high = one.interval
        assert low < 0.5 < high
        assert one.levels > 10
        assert one.verdict.test is not None
        assert one.verdict.test.broken == 6


def test_who_filters_changes_none(found: Parity) -> None:
    ways = by_name(found)
    near = ways["onnx-antialias"]
    assert near.changed == 0
    assert near.accepted
    assert near.levels < 1
    assert near.verdict.snr is not None
    assert near.verdict.snr > 30
    assert ways["onnx"].changed == 6


def test_torchvision_on_pillow_images_is_the_same_and_without_antialias_is_not(
    torchvision: ModuleType, engine: Engine, pictures: Path
) -> None:
    ways = by_name(parity(engine, data=pictures, only=["torchvision"]))
    assert ways["torchvision-pil"].levels == 0
    assert ways["torchvision-pil"].changed == 0
    assert ways["torchvision-tensor"].levels < 1
    assert ways["torchvision-tensor"].changed == 0
    assert ways["torchvision-no-antialias"].changed == 6


def test_opencv(found: Parity) -> None:
    pytest.importorskip("cv2")
    ways = by_name(found)
    assert ways["opencv"].changed == 6
    assert ways["opencv-area"].changed == 0
    assert ways["opencv-area"].levels > 0


def test_a_draft_is_judged_both_ways_around(engine: Engine, pictures: Path, tmp_path: Path, found: Parity) -> None:
    """An engine whose pictures are drafts is held against full decoding."""
    drafting = make(tmp_path / "x", msgspec.structs.replace(HOW, draft=True))
    (full,) = parity(drafting, data=pictures, only=["pillow-full"]).outcomes
    assert full.way == "pillow-full-decode"
    assert full.levels == pytest.approx(by_name(found)["pillow-draft"].levels)
    assert full.levels > 0


def test_an_engine_with_its_preprocessing_inside(pictures: Path, tmp_path: Path, found: Parity) -> None:
    inside = make(tmp_path / "x", msgspec.structs.replace(HOW, inside=True))
    ours = by_name(parity(inside, data=pictures, only=["pillow", "onnx"]))
    theirs = by_name(found)
    assert {name: one.changed for name, one in ours.items()} == {name: theirs[name].changed for name in ours}


def test_a_library_that_is_not_here_is_named(engine: Engine, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # Python's own way to say that there is none
    found = parity(engine, data=pictures, only=["opencv", "pillow-nearest"])
    assert found.missing == dict.fromkeys(("opencv", "opencv-area"), "the Python package 'cv2' is not installed")
    assert [one.way for one in found.outcomes] == ["pillow-nearest"]
    assert "opencv: not tried, the Python package 'cv2' is not installed" in str(found)


def test_ways_of_which_none_can_be_tried_are_no_pass(
    engine: Engine, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job in CI without OpenCV ended with "every way that was tried is within [accept]" and exit code 0."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BackendError, match=r"opencv cannot be tried: the Python package 'cv2' is not installed.*\[parity\]"):
        parity(engine, data=pictures, only=["opencv"])
    assert in_process(monkeypatch, engine, pictures, "--only", "opencv,pillow-reducing") == 2
    assert "opencv cannot be tried" in capsys.readouterr().err


def test_too_few_pictures_are_no_refusal(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`accuracy` tells 3 from 1; here both were 1, and "not within [accept]"."""
    few = tmp_path / "few"
    for name, count in (("smooth", 1), ("grain", 2)):
        (few / name).mkdir(parents=True)
        for path in sorted((pictures / name).iterdir())[:count]:
            shutil.copy(path, few / name)
    engine = make(tmp_path / "x", HOW)
    [one] = parity(engine, data=few, only=["pillow-nearest"]).outcomes
    assert one.verdict.state == "undecided"
    assert in_process(monkeypatch, engine, few, "--only", "pillow-nearest") == 3
    assert "cannot tell with these pictures: pillow-nearest" in capsys.readouterr().out


def in_process(monkeypatch: pytest.MonkeyPatch, engine: Engine, data: Path, *more: str) -> object:
    """The exit code of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["toolkit", "parity", str(engine.path), "--data", str(data), *more])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_pictures_without_labels_rest_on_agreement(engine: Engine, pictures: Path) -> None:
    found = parity(engine, data=pictures / "smooth", only=["pillow-nearest"])
    assert not found.labeled
    assert any("no labels" in remark for remark in found.remarks)
    assert "unlabeled images" in found.outcomes[0].verdict.text
    assert found.outcomes[0].flips[0].label is None


def test_pictures_of_the_networks_size_cannot_tell(engine: Engine, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    found = parity(engine, data=tmp_path, only=["pillow-nearest"])
    assert any("network's size already" in remark for remark in found.remarks)


def test_what_cannot_be_asked(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no library or method 'matlab'.*opencv, opencv-area, torchvision-pil"):
        parity(engine, data=tmp_path, only=["matlab"])
    np.save(tmp_path / "x.npy", np.zeros((2, *HOW.input_shape), np.float32))
    with pytest.raises(DataError, match="preprocessed images, which are not decoded"):
        parity(engine, data=tmp_path / "x.npy")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.jpg"):
        parity(engine, data=tmp_path / "bad")
    with pytest.raises(DataError, match="names no images"):
        parity(engine)


def test_from_a_shell(engine: Engine, pictures: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toolkit", "parity", str(engine.path), "--data", str(pictures), *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = run("--json", "--only", "pillow-nearest,pillow-reducing")
    found = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert [one["way"] for one in found["outcomes"]] == ["pillow-nearest", "pillow-reducing"]
    assert found["outcomes"][0]["changed"] == len(found["outcomes"][0]["flips"]) == 6
    shown = run("--only", "pillow-nearest")
    assert "smooth -> grain (is smooth)" in shown.stdout
    assert "and 3 more" in shown.stdout


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_graphs_resize_filters_where_it_is_told_to(interpolation: str) -> None:
    """On noise, the hardest of pictures: ONNX Runtime's filter is near Pillow's, though not the same; without it, nothing is."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    want = np.asarray(Image.fromarray(pixels).resize((41, 31), Image.Resampling[interpolation.upper()]), np.int16)
    filtered, plain = (resize(pixels, 41, 31, interpolation, antialias=on).astype(np.int16) - want for on in (True, False))
    assert np.abs(filtered).mean() * 5 < np.abs(plain).mean()
    assert abs(filtered.mean()) < 0.5  # and it shifts nothing
    smooth = np.asarray(Image.fromarray(pixels[:9, :12]).resize((120, 90), Image.Resampling.BICUBIC))
    like = np.asarray(Image.fromarray(smooth).resize((41, 31), Image.Resampling[interpolation.upper()]), np.int16)
    assert np.abs(resize(smooth, 41, 31, interpolation, antialias=True) - like).max() <= 4


def test_the_interval_of_a_share() -> None:
    """Clopper and Pearson's, from SciPy."""
    stats = pytest.importorskip("scipy.stats")
    for hits, n in ((0, 10), (3, 50), (50, 50), (7, 10_000)):
        want = stats.binomtest(hits, n).proportion_ci(method="exact")
        assert share_interval(hits, n) == pytest.approx((want.low, want.high), abs=1e-6)


def test_the_recipe_of_an_engine_is_what_accepts(engine: Engine) -> None:
    assert isinstance(engine.recipe, Recipe)
