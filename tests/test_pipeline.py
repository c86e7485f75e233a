"""The whole trip on the packaged models: real weights, real images, real engines; and what may go wrong on the way."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest

import toolkit
from toolkit import pipeline
from toolkit.engine.engine import Engine
from toolkit.errors import BackendError, BudgetError, CalibrationError, DataError, EngineError, InputError, WeightsError
from toolkit.harness.verdict import Verdict
from toolkit.images.dataset import open_data
from toolkit.manifest import Manifest
from toolkit.pipeline import Trip
from toolkit.recipe import Recipe
from toolkit.trip import room_of, unforeseen
from toolkit.types import Target

ENGINES = Path(__file__).parent.parent / "engines"
CPU = Target("cpu")


def recipe(name: str) -> Recipe:
    return Recipe.load(ENGINES / f"{name}.toml")


def judge(folder: Path) -> tuple[Verdict, str]:
    found = Engine.open(folder).judge()
    assert found.verdict is not None
    return found.verdict, found.how


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def trip() -> Trip:
    return pipeline.prepare(recipe("fashion-resnet18-int8"))


@pytest.fixture(scope="session")
def engine(trip: Trip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / trip.recipe.name
    pipeline.build(trip, CPU, folder)
    return folder


def test_int8_keeps_the_accuracy(trip: Trip, engine: Path) -> None:
    """The bar is 0.3 points of top-1 on all 10,000 test images, for both packaged models."""
    verdict, how = judge(engine)
    assert how == "measured"
    assert verdict.accepted
    assert verdict.images == 10_000
    assert verdict.top1 is not None
    assert verdict.top1[1] > verdict.top1[0] - 0.003
    with toolkit.load(engine) as runner:
        assert runner.manifest.precision == "int8+fp16"


def test_int8_keeps_the_accuracy_of_bottlenecks(tmp_path: Path) -> None:
    other = pipeline.prepare(recipe("fashion-resnet50-int8"))
    pipeline.build(other, CPU, tmp_path / "engine")
    verdict, _ = judge(tmp_path / "engine")
    assert verdict.top1 is not None
    assert verdict.top1[1] > verdict.top1[0] - 0.003


def test_every_precision_of_one_reference(trip: Trip, tmp_path: Path) -> None:
    recipes = [recipe(f"fashion-resnet18-{kind}") for kind in ("fp32", "fp16")]
    sizes = {}
    other = trip
    for one in recipes:
        other = pipeline.prepare(one, like=other)
        assert other.source is trip.source  # not exported again
        folder = tmp_path / one.name
        manifest = pipeline.build(other, CPU, folder)
        sizes[manifest.precision] = (folder / manifest.file).stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


def test_a_build_repeats_to_the_byte(trip: Trip, engine: Path, tmp_path: Path) -> None:
    pipeline.build(trip, CPU, tmp_path / "again")
    for name in ("model.onnx", "ranges.json", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (engine / name).read_bytes(), name


def test_the_manifest_tells_where_it_came_from(trip: Trip, engine: Path) -> None:
    manifest = Manifest.read(engine)
    assert set(manifest.hashes) == {"weights", "onnx", "calibration", "ranges", "file"}
    assert {"toolkit", "onnxruntime"} <= set(manifest.versions)
    assert manifest.classes is not None
    assert len(manifest.classes) == 10
    assert msgspec.convert(manifest.recipe, Recipe) == trip.recipe


def test_the_runner_takes_any_batch_and_pictures(engine: Path, trip: Trip) -> None:
    images = open_data("packaged:fashion-test", trip.recipe.preprocess, 70)
    with toolkit.load(engine) as runner:
        everything = runner(next(images.batches(70)))
        one_by_one = np.concatenate([runner(batch) for batch in images.batches(1)])
        np.testing.assert_array_equal(everything, one_by_one)
        top = runner.classify([images.picture(0)], top=3)[0]
    assert [p.index for p in top] == np.argsort(-everything[0], kind="stable")[:3].tolist()
    assert sum(p.probability for p in top) <= 1
    assert top[0].label == trip.source.reference.manifest.classes[top[0].index]  # type: ignore[index]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (np.zeros((0, 1, 28, 28), np.float32), "batch of 0"),
        (np.zeros((1, 3, 28, 28), np.float32), r"takes \[N, 1, 28, 28\], not an array of shape \[1, 3, 28, 28\]"),
        (np.zeros((1, 28, 28), np.float32), "not an array of shape"),
        (np.zeros((1, 1, 28, 28), np.float64), r"takes float32, not float64\. Use batch\.astype"),
        ([[0.0]], "not list"),
    ],
)
def test_the_runner_refuses(engine: Path, batch: object, words: str) -> None:
    with toolkit.load(engine) as runner, pytest.raises(InputError, match=words):
        runner(batch)  # type: ignore[arg-type]


def test_a_tampered_engine_is_refused(engine: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(engine, copy)
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(bytes(data))
    with pytest.raises(EngineError, match="not the file that its manifest describes"):
        toolkit.load(copy)


def test_a_provider_that_is_not_there_is_an_error(trip: Trip, tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    pipeline.build(trip, Target("cuda"), tmp_path / "engine")  # it is the ONNX file; running it is another matter
    with pytest.raises(BackendError, match=r"CUDAExecutionProvider.*gpu"):
        toolkit.load(tmp_path / "engine")


def test_targets_share_a_verdict_only_where_they_share_the_graph(tmp_path: Path) -> None:
    """Weights of a CPU without VNNI have room in pairs, those of `cuda` all 8 bits: one's verdict was once the other's."""
    one = recipe("fashion-resnet18-int8")
    given = {"compute": "fp32", "equalize": "none", "weights": "absmax", "rounding": "nearest", "bias_correction": False}
    one = msgspec.structs.replace(
        one,
        precision=msgspec.structs.replace(one.precision, **given),
        calibration=msgspec.structs.replace(one.calibration, method="minmax", images=16),
        accept=msgspec.structs.replace(one.accept, images=200, max_top1_drop=50.0, min_agreement=0.5),
    )
    small, proofs = pipeline.prepare(one), dict[pipeline.Numerics, Verdict | None]()
    for index, target in enumerate((CPU, Target("cuda"), CPU)):
        pipeline.build(small, target, tmp_path / str(index), proofs=proofs)
        proof, alone = Engine.open(tmp_path / str(index)).proof, pipeline.prove(small, pipeline.typed(small, target), target)
        assert proof is not None and alone is not None and proof.verdict.snr == alone.snr
    assert len(proofs) == 2


def test_an_engine_below_its_budget_is_refused_and_the_old_one_stays(trip: Trip, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    pipeline.build(trip, CPU, folder)
    before = (folder / "manifest.json").read_bytes()
    strict = msgspec.structs.replace(trip.recipe.accept, min_agreement=1.0)
    with pytest.raises(BudgetError, match=r"refused: .*below 100\.00%; .*engine still holds the engine .* before.*toolkit tune"):
        pipeline.build(trip._replace(recipe=msgspec.structs.replace(trip.recipe, accept=strict)), CPU, folder)
    assert (folder / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]


def test_ctrl_c_halfway_leaves_the_old_engine(trip: Trip, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    pipeline.build(trip, CPU, folder)

    def stop(stage: str) -> toolkit.types.Progress:
        if stage.startswith("judge"):
            raise KeyboardInterrupt
        return lambda done, total: None

    with pytest.raises(KeyboardInterrupt):
        pipeline.build(trip, CPU, folder, stop)
    with toolkit.load(folder) as runner:
        assert len(runner(np.zeros((2, 1, 28, 28), np.float32))) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]


def test_ranges_of_another_graph_are_refused(trip: Trip, tmp_path: Path) -> None:
    assert trip.ranges is not None
    trip.ranges.write(tmp_path / "ranges.json")
    given = msgspec.structs.replace(trip.recipe.calibration, ranges=str(tmp_path / "ranges.json"))
    own = msgspec.structs.replace(trip.recipe, calibration=given)
    assert pipeline.prepare(own, like=trip, proof=False).ranges == trip.ranges
    foreign = msgspec.structs.replace(recipe("fashion-resnet50-int8"), calibration=given)
    with pytest.raises(CalibrationError, match="another graph"):
        pipeline.prepare(foreign, proof=False)


def test_calibration_images_without_a_picture_are_refused(trip: Trip, tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", np.full((4, 1, 28, 28), 0.7, np.float32))
    grey = msgspec.structs.replace(trip.recipe.calibration, data=str(tmp_path / "grey.npy"))
    with pytest.raises(CalibrationError, match=r"every calibration image is the same throughout: 0.7"):
        pipeline.prepare(msgspec.structs.replace(trip.recipe, calibration=grey), like=trip)


def test_a_reference_that_overflows_is_named_with_image_and_tensor(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from toolkit.images.dataset import PACKAGED
    from toolkit.reference.weights import read_weights

    weights = read_weights(PACKAGED / "fashion-resnet18.safetensors")
    loud = {key: value.float() for key, value in weights.tensors.items()}
    loud["layer2.0.conv1.weight"] = loud["layer2.0.conv1.weight"] * 1e38
    save_file(loud, tmp_path / "loud.safetensors", weights.metadata)
    one = recipe("fashion-resnet18-int8")
    reference = msgspec.structs.replace(one.reference, weights=str(tmp_path / "loud.safetensors"))
    with pytest.raises(WeightsError, match=r"NaN or infinity for image 0 .*'layer2.0.conv1'"):
        pipeline.prepare(msgspec.structs.replace(one, reference=reference), proof=False)


def test_fp16_overflow_is_foreseen(trip: Trip) -> None:
    """With logits a hundred thousand times as large, the classifier alone has to stay in FP32."""
    import onnx_ir as ir

    from toolkit.graph.edit import constant, initializer
    from toolkit.graph.overflow import Overflow

    graph = trip.source.graph.clone()
    conv = next(node for node in graph.graph if node.name == "layer3.0.conv1")
    for index in (1, 2):
        value = constant(conv.inputs[index])
        assert value is not None
        conv.replace_input_with(index, initializer(graph.graph, f"huge{index}", value * np.float32(3e4)))
    fp16 = recipe("fashion-resnet18-fp16")
    loud = trip._replace(recipe=fp16, graph=graph, ranges=None, peaks=pipeline.peaks(graph, pipeline.calibration_images(fp16)))
    found = pipeline.foreseen(loud)
    assert "layer3.0.relu" in {overflow.tensor for overflow in found if isinstance(overflow, Overflow)}
    typed = pipeline.typed(loud, CPU)
    kinds = {node.name: node.outputs[0].dtype for node in typed.graph}
    assert kinds["layer3.0.conv1"] == ir.DataType.FLOAT
    assert kinds["layer2.0.conv1"] == ir.DataType.FLOAT16


def test_the_variance_of_a_norm_stays_in_fp32_and_is_said(trip: Trip) -> None:
    import onnx.parser
    import onnx_ir as ir

    text = """<ir_version: 9, opset_import: ["": 18]> g (float[N,64] x) => (float[N,64] y)
        <float two = {2}, int64[1] last = {-1}> {
        square = Pow(x, two) mean = ReduceMean(square, last) root = Sqrt(mean) unit = Div(x, root) y = Relu(unit) }"""
    graph = ir.from_proto(onnx.parser.parse_model(text))
    for node in graph.graph:
        node.name = node.outputs[0].name
    (found,) = pipeline.foreseen(
        trip._replace(recipe=recipe("fashion-resnet18-fp16"), graph=graph, ranges=None, peaks={"square": 1e6})
    )
    assert "calibration.data" in unforeseen(trip._replace(recipe=recipe("fashion-resnet18-fp16"), peaks={}))[0]
    assert found.nodes == ("square", "mean", "root", "unit") and "variance or norm" in str(found)


def test_int8_is_right_on_every_cpu_unless_the_recipe_says_otherwise(
    trip: Trip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.engine.engine import load

    vnni = msgspec.structs.replace(trip.recipe, build=msgspec.structs.replace(trip.recipe.build, cpu="vnni", threads=1))
    everywhere = msgspec.structs.replace(vnni, build=msgspec.structs.replace(vnni.build, cpu="any"))
    monkeypatch.setattr("toolkit.trip.has_vnni", lambda: False)
    monkeypatch.setattr("toolkit.runtime.foreign.has_vnni", lambda: False)
    narrow = pipeline.build(trip._replace(recipe=everywhere, truth=None), CPU, tmp_path / "any")
    assert narrow.settings["cpu"] == "any" and not any("VNNI" in note for note in narrow.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "any").close()
    full = pipeline.build(trip._replace(recipe=vnni, truth=None), CPU, tmp_path / "vnni")
    assert full.settings["cpu"] == "vnni" and any("this machine is such a CPU" in note for note in full.notes)
    with pytest.warns(RuntimeWarning, match=r'without VNNI.*Set `build.cpu = "any"` and build it again'):
        load(tmp_path / "vnni").close()
    monkeypatch.setattr("toolkit.runtime.foreign.has_vnni", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "vnni").close()
    overruled = msgspec.structs.replace(vnni, precision=msgspec.structs.replace(vnni.precision, reduce_range=True))
    assert room_of(overruled, CPU) == "pairs" and room_of(everywhere, Target("cuda")) == "full"


def test_data_that_is_not_there_is_said() -> None:
    one = recipe("fashion-resnet18-int8")
    gone = msgspec.structs.replace(one.calibration, data=str(Path("no") / "where"))
    with pytest.raises(DataError, match="does not exist"):
        pipeline.prepare(msgspec.structs.replace(one, calibration=gone), proof=False)


def test_an_onnx_classifier_of_another_tool_becomes_int8(tmp_path: Path) -> None:
    """PaddlePaddle's MobileNetV3, which tells whether a line of text stands on its head, on lines drawn here."""
    import importlib.util

    from PIL import Image, ImageDraw, ImageFont

    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None:
        pytest.skip("rapidocr, whose wheel carries the classifier, is not installed")
    random = np.random.default_rng(0)
    words = ["deploy", "engine", "image", "tensor", "layer", "scale", "batch", "street", "number", "invoice", "total", "address"]
    for split, count in (("calibration", 64), ("val", 240)):
        for index in range(count):
            font = ImageFont.load_default(size=int(random.integers(24, 34)))
            line = Image.new("RGB", (240, 48), tuple(random.integers(190, 255, 3).tolist()))
            text = " ".join(random.choice(words, 3))
            ImageDraw.Draw(line).text(
                (8, int(random.integers(0, 8))), text, fill=tuple(random.integers(0, 110, 3).tolist()), font=font
            )
            folder = tmp_path / split / ("0", "180")[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            line.rotate(180 * (index % 2)).save(folder / f"{index:03d}.png")
    (tmp_path / "names.txt").write_text("0\n180\n")  # names that look like labels
    text = f'''
name = "textline"
[reference]
onnx = "{Path(spec.origin).parent / "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"}"
classes = "{tmp_path / "names.txt"}"
[preprocess]
size = [48, 192]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
color = "BGR"
[precision]
int8 = true
[calibration]
data = "{tmp_path / "calibration"}"
images = 64
[accept]
data = "{tmp_path / "val"}"
max_top1_drop = 5.0
min_agreement = 0.95
'''
    manifest = pipeline.build(pipeline.prepare(Recipe.parse(text)), CPU, tmp_path / "engine")
    assert manifest.precision == "int8"
    verdict, _ = judge(tmp_path / "engine")
    assert verdict.accepted
    assert verdict.top1 is not None
    assert verdict.top1[0] > 0.9


def unlabeled(trip: Trip, **accept: object) -> Recipe:
    """The recipe without `[accept]`, with fixed settings and few images."""
    one = trip.recipe
    calibration = msgspec.structs.replace(one.calibration, images=48)
    return msgspec.structs.replace(
        one, calibration=calibration, accept=msgspec.structs.replace(one.accept, data=None, **accept), notes=()
    )


def test_a_build_without_labels_is_judged_on_images_held_back(trip: Trip, tmp_path: Path) -> None:
    other = pipeline.prepare(unlabeled(trip))
    assert other.judged is not None
    manifest = pipeline.build(other, CPU, tmp_path / "engine")
    assert re.fullmatch(r"unlabeled: agreement [0-9.]+%, SNR [0-9.]+ dB on 96 calibration images held back", manifest.notes[-2])
    assert manifest.notes[-1].startswith("reference top-1 unknown")


def test_a_build_without_labels_is_refused_below_the_agreement(trip: Trip) -> None:
    wanted = unlabeled(trip)
    wanted = msgspec.structs.replace(wanted, precision=msgspec.structs.replace(wanted.precision, rounding="auto"))
    other = pipeline.prepare(wanted)
    graph = pipeline.typed(other, CPU)
    last = next(node for node in graph.graph if node.name == "fc.add_bias")
    bias = last.inputs[1]
    assert bias is not None
    bias.const_value = ir.tensor(np.eye(10, dtype=np.float32)[0] * 1e3, name=bias.name)  # every answer is class 0
    with pytest.raises(BudgetError, match=r"refused: unlabeled: agreement .*below 98\.00%.*once `accept.data` names") as error:
        pipeline.prove(other, graph, CPU)
    assert re.search(r"toolkit why ENGINE; the best of the settings compared: SNR of the logits [0-9.]+ dB", str(error.value))


def test_one_calibration_image_is_enough_to_build_and_the_notes_say_what_stands(trip: Trip, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", next(open_data("packaged:fashion-train", trip.recipe.preprocess, 1).batches(1)))
    precision = msgspec.structs.replace(trip.recipe.precision, equalize="auto")
    calibration = msgspec.structs.replace(trip.recipe.calibration, data=str(tmp_path / "one.npy"), method="auto")
    other = pipeline.prepare(msgspec.structs.replace(trip.recipe, precision=precision, calibration=calibration), proof=False)
    assert other.recipe.calibration.method == "mse"
    assert any("too few calibration images to choose by" in reason for reason in other.remarks)


def test_an_export_says_how_far_its_graph_is_from_the_reference(trip: Trip, tmp_path: Path) -> None:
    accept = msgspec.structs.replace(trip.recipe.accept, images=200)
    _, _, verdict, _ = pipeline.export(msgspec.structs.replace(trip.recipe, accept=accept), tmp_path / "model.onnx")
    assert verdict is not None
    assert re.fullmatch(r"agreement [0-9.]+%, SNR [0-9.]+ dB on 200 images", verdict.distance)
