"""diff tells what two engines, graphs or recipes do not share, and nothing that they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.networks import fashion_graph
from tests.why.conftest import RECIPE, build
from toolkit.diff import Diff, diff
from toolkit.diff.tensors import ratios
from toolkit.errors import DataError, EngineError, GraphError
from toolkit.graph.edit import constant
from toolkit.graph.equalize import equalize
from toolkit.report.diff import diff_page, diff_table, facts, headline

PLAIN = 'int8 = true\nequalize = "none"\nweights = "absmax"\nrounding = "nearest"\nbias_correction = false'


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
    found = diff(engines["int8"], engines["int8"], seconds=1)
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
    file.write_text(RECIPE.format(name="int8", weights="packaged:fashion-resnet18", precision=PLAIN))
    found = diff(engines["int8"], file, seconds=0)
    assert found.kinds == ("engine", "recipe")
    assert found.same


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
    with pytest.raises(GraphError, match="cannot be read as ONNX"):
        diff(tmp_path / "bad.onnx", graph)
    with pytest.raises(DataError, match="two bare graphs do not say how a picture becomes an input"):
        diff(graph, graph, data="packaged:fashion-test")
    with pytest.raises(DataError, match="does not exist"):
        diff(engines["int8"], graph, data=str(tmp_path / "nowhere"))
