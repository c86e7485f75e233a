"""diff tells what two engines, graphs or recipes do not share, and nothing that they do."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from tests.engine.test_stranger import resealed
from tests.graph.load.test_hostile import bomb
from tests.graph.networks import fashion_graph, pictures
from tests.why.conftest import RECIPE, build
from toolkit.diff import Diff, diff
from toolkit.diff.nodes import changes
from toolkit.diff.sides import Side, answers, open_side
from toolkit.diff.tensors import ratios
from toolkit.errors import DataError, EngineError, GraphError
from toolkit.graph.edit import constant
from toolkit.graph.equalize import equalize
from toolkit.graph.run import graph_runner, predicting_runner
from toolkit.recipe import Calibration, Recipe, Reference
from toolkit.report.diff import diff_page, diff_table, facts, headline
from toolkit.types import Target, quiet

PLAIN = 'int8 = true\nequalize = "none"\nweights = "absmax"\nrounding = "nearest"\nbias_correction = false'
DATA = "packaged:fashion-train"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("engines")
    kinds = {"full": "", "int8": PLAIN, "kept": f'{PLAIN}\nkeep = ["layer2"]'}
    return {name: build(folder, name, precision, "packaged:fashion-resnet18") for name, precision in kinds.items()}


@pytest.fixture(scope="module")
def narrowed(engines: dict[str, Path]) -> Diff:
    return diff(engines["full"], engines["int8"], seconds=0)


def saved(graph: ir.Model, path: Path) -> Path:
    ir.save(graph, path)
    return path


def test_an_engine_is_itself(engines: dict[str, Path]) -> None:
    found = diff(engines["int8"], engines["int8"], seconds=0.2)
    assert found.same
    assert found.logits is None
    assert headline(found) == "int8 is int8, node for node and answer for answer"
    assert found.verdict is not None
    assert found.verdict.agreement == 1
    assert found.latency is not None
    assert found.latency.ratio > 0


def test_precisions_scales_weights_and_tensors_are_told(narrowed: Diff) -> None:
    layers = {layer.name: layer for layer in narrowed.layers}
    conv = layers["layer1.0.conv1"]
    assert conv.precision == ("fp32", "int8")
    assert conv.scales[0] is None
    assert conv.scales[1] is not None
    assert conv.weights is not None
    assert 35 < conv.weights < 60  # 8 bits a channel
    assert conv.snr is not None
    assert 15 < conv.snr < 60
    assert narrowed.logits is not None
    assert narrowed.only[0] == ()
    assert all("quantize" in name or "add_bias" in name for name in narrowed.only[1])
    assert ("QuantizeLinear", 0, 31) in narrowed.operators
    assert {change.key: (change.a, change.b) for change in narrowed.recipe}["precision.int8"] == ("False", "True")


def test_what_one_keeps_is_found(engines: dict[str, Path]) -> None:
    found = diff(engines["int8"], engines["kept"], seconds=0)
    changed = {layer.name for layer in found.layers if layer.precision[0] != layer.precision[1]}
    assert changed == {f"layer2.{i}.{op}" for i in (0, 1) for op in ("conv1", "conv2", "add")} | {"layer2.0.downsample.0"}
    before = [layer for layer in found.layers if layer.name.startswith(("conv1", "layer1"))]
    assert before
    assert not any(layer.differs for layer in before)
    assert any("layers by precision" in line for line in facts(found))


def test_what_equalization_changes_is_no_loss(tmp_path: Path) -> None:
    """Two graphs of one function: their tensors differ by a factor a channel, and by nothing else."""
    graph = fashion_graph("resnet18")
    found = diff(saved(graph, tmp_path / "a.onnx"), saved(equalize(graph, "pairs"), tmp_path / "b.onnx"), seconds=0)
    conv = next(layer for layer in found.layers if layer.name == "layer1.0.conv1")
    assert conv.weights is not None
    assert conv.weights < 20
    assert conv.scaled_weights is not None
    assert conv.scaled_weights > 100
    assert conv.snr is not None
    assert conv.snr < 20
    assert conv.scaled is not None
    assert conv.scaled > 70  # what float32 sums of squares can tell apart
    assert any("on random noise" in note for note in found.notes)
    assert found.verdict is None


def test_a_changed_weight_is_found_in_its_layer(tmp_path: Path) -> None:
    graph = fashion_graph("resnet18")
    other = graph.clone()
    node = next(node for node in other.graph if node.name == "layer3.0.conv2")
    array, value = constant(node.inputs[1]), node.inputs[1]
    assert array is not None
    assert value is not None
    changed = array.copy()
    changed[0] = -changed[0]
    value.const_value = ir.tensor(changed, name=value.name)
    found = diff(saved(graph, tmp_path / "a.onnx"), saved(other, tmp_path / "b.onnx"), seconds=0)
    assert [layer.name for layer in found.layers if layer.weights is not None] == ["layer3.0.conv2"]
    first = next(layer for layer in found.layers if layer.snr is not None)
    assert first.name == "layer3.0.conv2"


def test_a_recipe_is_compared_as_it_would_be_built(engines: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "int8.toml"
    file.write_text(RECIPE.format(name="int8", weights="packaged:fashion-resnet18", precision=PLAIN, data=DATA))
    found = diff(engines["int8"], file, seconds=0)
    assert found.kinds == ("engine", "recipe")
    assert found.same


def test_two_ways_to_one_file_are_no_change(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "set")
    graph = ir.Model(ir.Graph([], [], nodes=[], name="g"), ir_version=9)

    def side(*, onnx_file: str, data: str) -> Side:
        recipe = Recipe(name="a", reference=Reference(onnx=onnx_file), calibration=Calibration(data=data))
        return Side("a", "recipe", graph, "cpu", recipe)

    plain = side(onnx_file=f"{tmp_path}/a.onnx", data=f"{tmp_path}/set")
    assert changes(plain, side(onnx_file=f"{tmp_path}/set/../a.onnx", data=f"{tmp_path}/link/../set/.")) == ()
    other = changes(plain, side(onnx_file=f"{tmp_path}/set/a.onnx", data=f"{tmp_path}/set"))
    assert [(one.key, one.b) for one in other] == [("reference.onnx", f"{tmp_path}/set/a.onnx")]


def test_page_and_table_hold_every_layer(narrowed: Diff) -> None:
    from rich.console import Console

    page = diff_page(narrowed)
    assert page.count("<script") == 1
    assert all(layer.name in page for layer in narrowed.layers)
    console = Console(width=100, record=True)
    console.print(diff_table(narrowed))
    lowest = min(narrowed.layers, key=lambda layer: layer.scaled or 999)
    assert lowest.name in console.export_text()


def test_weights_are_compared_up_to_a_factor_for_each_row_and_column() -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal((8, 4, 3, 3)).astype(np.float32)
    rows, columns = np.exp(random.standard_normal((8, 1, 1, 1))), np.exp(random.standard_normal((1, 4, 1, 1)))
    plain, scaled = ratios(a, (a * rows * columns).astype(np.float32), 0)
    assert plain is not None
    assert scaled is not None
    assert plain < 10
    assert scaled > 100
    assert ratios(a, a, 0) == (None, None)


def test_bad_input_is_a_clear_line(engines: dict[str, Path], tmp_path: Path) -> None:
    graph = saved(fashion_graph("resnet18"), tmp_path / "a.onnx")
    with pytest.raises(EngineError, match=r"there is no .+nothing.+Name an engine's folder"):
        diff(tmp_path / "nothing", graph)
    with pytest.raises(EngineError, match=r"is not an engine: it has no manifest\.json"):
        diff(tmp_path, graph)
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(EngineError, match=r"neither an engine, nor .onnx, nor .toml"):
        diff(tmp_path / "text.txt", graph)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(GraphError, match="is not a valid ONNX file"):
        diff(tmp_path / "bad.onnx", graph)
    with pytest.raises(DataError, match="two bare graphs do not say how a picture becomes an input"):
        diff(graph, graph, data="packaged:fashion-test")
    with pytest.raises(DataError, match="does not exist"):
        diff(engines["int8"], graph, data=str(tmp_path / "nowhere"))


def test_a_files_weights_lie_beside_it(tmp_path: Path) -> None:
    """A stranger's file that names one elsewhere had it read in."""
    (tmp_path / "secret").write_bytes(bytes(4))
    (tmp_path / "inside").mkdir()
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../secret")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    path = tmp_path / "inside" / "a.onnx"
    path.write_bytes(onnx.helper.make_model(graph, ir_version=8).SerializeToString())
    with pytest.raises(GraphError, match="outside the folder of the ONNX file"):
        diff(path, path)


def test_a_recipe_for_a_gpu_answers_as_a_gpu_rounds(tmp_path: Path) -> None:
    """ONNX Runtime's CPU computes FP16 in FP32."""
    file = tmp_path / "half.toml"
    text = RECIPE.format(name="half", weights="packaged:fashion-resnet18", precision='compute = "fp16"', data=DATA)
    file.write_text(f'{text}target = "rtx:sm89"\n')
    side = open_side(file, quiet)
    with answers(side) as (runner, note):
        ours = runner(pictures(8))
    assert "rtx:sm89, rounded as that rounds" in note
    np.testing.assert_array_equal(ours, predicting_runner(side.graph, Target("rtx", 89))(pictures(8)))
    assert not np.array_equal(ours, graph_runner(side.graph)(pictures(8)))


def test_folders_that_are_no_classes_are_refused(engines: dict[str, Path], tmp_path: Path) -> None:
    """Two folders were once the labels 0 and 1 of a network of ten classes without names."""
    for name in ("boots", "shirts"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((28, 28), 99, np.uint8)).save(tmp_path / name / "a.png")
    with pytest.raises(DataError, match="has 2 class folders, and full answers 10 classes"):
        diff(engines["full"], engines["int8"], data=str(tmp_path), seconds=0)


def test_a_binary_network_is_judged_by_its_threshold(tmp_path: Path) -> None:
    """The largest of its one column is always the first: two that never agree once agreed on every image."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(16, 1, 4, 4)).astype(np.float32))
    weight = np.random.default_rng(1).normal(size=(16, 1)).astype(np.float32)
    for name, sign in (("a", 1), ("b", -1)):
        nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("Gemm", ["f", "w"], ["y"])]
        shapes = {"x": ["N", 1, 4, 4], "y": ["N", 1]}
        x, y = (onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key, shape in shapes.items())
        graph = onnx.helper.make_graph(nodes, "g", [x], [y], [onnx.numpy_helper.from_array(sign * weight, "w")])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
        pixels = '[preprocess]\nsize = [4, 4]\ncolor = "L"\nmean = [0.0]\nstd = [1.0]'
        (tmp_path / f"{name}.toml").write_text(
            f'name = "{name}"\n[reference]\nonnx = "{name}.onnx"\n{pixels}\n[accept]\ndata = "images.npy"\n'
        )
    found = diff(tmp_path / "a.toml", tmp_path / "b.toml", seconds=0)
    assert found.verdict is not None and found.verdict.agreement == 0


@pytest.mark.parametrize("kind", ["Expand of an activation", "ConstantOfShape", "MatMul"])
def test_a_bare_file_that_would_fill_the_memory_is_not_opened_here(tmp_path: Path, kind: str) -> None:
    """In this process neither for its shapes, nor to run it."""
    path = bomb(tmp_path / "m.onnx", kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GraphError, match=r"bomb|ended the process|does not run on one image"), answers(open_side(path, quiet)):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_an_engine_from_elsewhere_is_not_compared_on_what_lies_here(
    engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recipe names relative paths, and a folder of that name may lie in the current one."""
    (tmp_path / "images").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "images/1.png")
    monkeypatch.chdir(tmp_path)
    foreign = resealed(shutil.copytree(engines["int8"], tmp_path / "foreign"), lambda card: card["recipe"].update(
        accept={"data": "images"}, calibration={"data": "images"}))  # fmt: skip
    found = diff(foreign, foreign, seconds=0)
    assert found.verdict is None
    assert any("'images' is on another machine" in note for note in found.notes)
