"""From TensorRT 10: the scales of a calibration cache stand in the new graph, each flag of trtexec has its place or is named."""

from __future__ import annotations

import shlex
import struct
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from typer.testing import CliRunner

from toolkit import orders
from toolkit.cli.main import app
from toolkit.errors import CalibrationError, RecipeError
from toolkit.graph.edit import constant
from toolkit.graph.magnitude import magnitudes
from toolkit.graph.qdq import quantize
from toolkit.images.synthetic import synthetic
from toolkit.migrate.cache import is_cache, read_cache
from toolkit.migrate.migrate import migrate
from toolkit.migrate.trtexec import read_line, trtexec_line
from toolkit.recipe import Recipe
from toolkit.reference.source import open_source
from toolkit.types import Target

LINE = (
    "trtexec --onnx={onnx} --int8 --fp16 --calib={cache} --minShapes=x:1x3x16x16 --optShapes=x:8x3x16x16 "
    "--maxShapes=x:32x3x16x16 "
    "--layerPrecisions=last:fp32,*:int8 --precisionConstraints=obey --memPoolSize=workspace:2G --builderOptimizationLevel=4 "
    "--saveEngine=old.engine --sparsity=enable"
)


def write_onnx(path: Path) -> None:
    """image -> Conv -> Relu -> Conv -> Relu -> mean -> Gemm."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(8, 5))
    program = torch.onnx.export(model.eval(), (torch.zeros(2, 3, 16, 16),), dynamo=True, verbose=False)
    assert program is not None
    program.save(path)


def hexadecimal(scale: float) -> str:
    return struct.pack(">f", scale).hex()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ir.Model]:
    path = tmp_path_factory.mktemp("network") / "net.onnx"
    write_onnx(path)
    recipe = Recipe.parse(f'name = "net"\n[reference]\nonnx = "{path}"\n[preprocess]\nsize = [16, 16]')
    return path, open_source(recipe).graph


def layers_of(graph: ir.Model) -> list[ir.Node]:
    return [node for node in graph.graph if node.op_type in ("Conv", "Gemm", "MatMul")]


def write_cache(path: Path, scales: dict[str, float]) -> Path:
    lines = [f"{name}: {hexadecimal(scale)}" for name, scale in scales.items()]
    path.write_text("\n".join(["TRT-8601-EntropyCalibration2", *lines, ""]))
    return path


def test_an_input_that_a_stranger_named_is_one_word_of_the_line(network: tuple[Path, ir.Model]) -> None:
    """`toolkit export --tool` writes the line into a shell script."""
    text = f'name = "net"\n[reference]\nonnx = "{network[0]}"\n[preprocess]\nsize = [16, 16]\n[build]\nbatch = [1, 1, 1]'
    recipe = Recipe.parse(text)
    line = trtexec_line(Path("a b.onnx"), recipe, Target("tensorrt"), "x; touch made; $(id) '")
    assert shlex.split(line)[1:4] == ["--onnx=a b.onnx", "--stronglyTyped", "--minShapes=x; touch made; $(id) ':1x3x16x16"]
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == shlex.split(line)


def test_a_line_of_a_cache_is_the_bytes_of_a_float(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_text("TRT-8601-EntropyCalibration2\ninput: 3c010a14\n(Unnamed Layer* 1) [Convolution]_output: 3d81c0f3\n")
    cache = read_cache(path)
    assert (cache.version, cache.method) == ("8601", "entropy")
    assert cache.scales["input"] == 0.007875937968492508
    assert "(Unnamed Layer* 1) [Convolution]_output" in cache.scales
    cut, nan, bare, negative, swapped, long = "3c010a", "7fc00000", " 3c010a14", "bc010a14", "0000803f", "3c010a14f"
    for wrong in (f"input: {cut}", f"input: {nan}", f"input{bare}", f"input: {negative}", f"input: {swapped}", f"input: {long}"):
        path.write_text(f"TRT-8601-EntropyCalibration2\n{wrong}\n")
        with pytest.raises(CalibrationError, match="line 2 is not a scale"):
            read_cache(path)
    path.write_text("hello\n")
    with pytest.raises(CalibrationError, match="not a calibration cache"):
        read_cache(path)


def test_the_same_scales_stand_in_the_new_graph(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    path, graph = network
    first, second, last = layers_of(graph)
    names = [str(node.inputs[0].name) for node in (first, second, last) if node.inputs[0] is not None]
    scales = dict(zip(names, (0.02, 0.03, 0.05), strict=True))
    cache = write_cache(tmp_path / "old.cache", {**scales, "somewhere_else": 0.5})
    found = migrate([str(cache)], tmp_path / "new.toml", path)
    recipe = Recipe.load(tmp_path / "new.toml")
    from toolkit.calibration import Ranges

    assert recipe.calibration.ranges is not None and recipe.precision.int8 and recipe.precision.equalize == "none"
    quantized = quantize(graph, Ranges.read(recipe.calibration.ranges), recipe.precision, recipe.calibration, scheme="tensorrt")
    steps = {n.inputs[0].name: constant(n.inputs[1]) for n in quantized.graph if n.op_type == "QuantizeLinear" and n.inputs[0]}
    for name, scale in scales.items():
        np.testing.assert_allclose(steps[name], scale, rtol=1e-6)
    assert any("somewhere_else" in text for text in found.said) and any("3 scales" in text for text in found.said)


def test_scales_that_no_layer_needs_are_counted_and_those_of_another_network_named(
    network: tuple[Path, ir.Model], tmp_path: Path
) -> None:
    """TensorRT 10's caches hold constants by their layers' names, and what its parser made: they passed for another export's."""
    path, graph = network
    first = layers_of(graph)[0]
    assert first.inputs[0] is not None
    constants = [f"{name}_output" for name in list(graph.graph.initializers)[:2]]
    made = ["ONNXTRT_Broadcast_191_output", "ONNXTRT_Broadcast_output", "onnx::MatMul_388_output"]
    made.append("(Unnamed Layer* 64) [Shuffle]_output")
    others = (*constants, *made, str(first.outputs[0].name), "encoder/Add_output_0", "stem_output")
    scales = {str(first.inputs[0].name): 0.02, **dict.fromkeys(others, 0.01)}
    found = migrate([str(write_cache(tmp_path / "old.cache", scales))], tmp_path / "new.toml", path)
    said = [text for text in found.said if text.startswith(("not ", "in the cache"))]
    assert said == [
        "not needed, scales of constants or of tensors that TensorRT made beside the file's: 6",
        "not used, scales of tensors that no INT8 layer reads here, such as sums and attention: 1",
        "in the cache and not in the file (another export?): encoder/Add_output_0, stem_output",
    ]


def test_the_next_command_works_or_says_what_comes_first(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    """A recipe named a folder of images that was not there, and `toolkit build` of it failed, be they needed or not."""
    path, graph = network
    scales = {str(node.inputs[0].name): 0.02 for node in layers_of(graph) if node.inputs[0] is not None}
    cache = write_cache(tmp_path / "old.cache", scales)
    for source in (str(cache), f"trtexec --onnx={path} --fp16", f"trtexec --onnx={path}"):
        done = CliRunner().invoke(app, ["migrate", source, "--onnx", str(path), "-o", str(tmp_path / "new.toml")])
        assert done.exit_code == 0 and "put calibration images" not in done.output, done.output
        recipe = Recipe.load(tmp_path / "new.toml")
        assert recipe.calibration.data is None
        (order,) = orders.build_all([recipe], "cpu", tmp_path / "built")
        assert order[0].is_dir()
    done = CliRunner().invoke(app, ["migrate", f"trtexec --onnx={path} --refit", "-o", str(tmp_path / "new.toml")])
    assert "--target rtx" not in done.output and "on the GPU that runs it" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["migrate", f"trtexec --onnx={path} --int8", "-o", str(tmp_path / "new.toml")])
    folder = tmp_path / "calibration-images"
    assert done.exit_code == 0 and f"put calibration images into {folder}, then toolkit build" in " ".join(done.output.split())
    assert Recipe.load(tmp_path / "new.toml").calibration.data == str(folder)
    folder.mkdir()
    for index in range(8):
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{index}.png")
    assert orders.build_all([Recipe.load(tmp_path / "new.toml")], "cpu", tmp_path / "built", proof=False)


def test_a_network_that_takes_no_image_is_refused_with_what_an_engine_takes(tmp_path: Path) -> None:
    x = ir.Value(name="input", shape=ir.Shape(["batch", 32, 64]), type=ir.TensorType(ir.DataType.FLOAT))
    relu = ir.node("Relu", [x], name="relu")
    graph = ir.Graph([x], relu.outputs, nodes=[relu], opset_imports={"": 17}, name="steps")
    ir.save(ir.Model(graph, ir_version=8), tmp_path / "steps.onnx")
    with pytest.raises(RecipeError, match=r"its first input is input float32 \[\?, 32, 64\]. An engine here takes"):
        migrate([f"trtexec --onnx={tmp_path / 'steps.onnx'}"], tmp_path / "new.toml")


def test_layers_without_a_scale_stay_as_tensorrt_left_them(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    path, graph = network
    first, second, _ = layers_of(graph)
    assert first.inputs[0] is not None and second.inputs[0] is not None
    cache = write_cache(tmp_path / "old.cache", {str(first.inputs[0].name): 0.02, str(second.inputs[0].name): 0.03})
    found = migrate([str(cache)], tmp_path / "new.toml", path)
    recipe = Recipe.load(tmp_path / "new.toml")
    assert recipe.precision.keep == (str(layers_of(graph)[2].name),)
    assert any("because they have no scale" in text for text in found.said)
    other = write_cache(tmp_path / "other.cache", {"not_here": 0.1})
    with pytest.raises(CalibrationError, match="belongs to another network"):
        migrate([str(other)], tmp_path / "wrong.toml", path)
    assert not (tmp_path / "wrong.toml").exists()


def test_a_trtexec_line_becomes_keys(tmp_path: Path) -> None:
    line = read_line(LINE.format(onnx="model.onnx", cache="old.cache"))
    assert (line.onnx, line.cache) == ("model.onnx", "old.cache")
    assert line.precision == {"compute": "fp16", "int8": True}
    assert line.layers == (("last", "fp32"), ("*", "int8"))
    assert line.build == {"target": "tensorrt", "batch": [1, 8, 32], "workspace_mib": 2048, "optimization_level": 4}
    said = " ".join(line.said)
    assert "--precisionConstraints: removed" in said and "--sparsity: not taken over" in said and "saveEngine" not in said
    with pytest.raises(RecipeError, match="names the ONNX file"):
        migrate(["trtexec --fp16"], tmp_path / "new.toml")
    with pytest.raises(RecipeError, match="alike"):
        read_line("trtexec --onnx=m.onnx --minShapes=x:1x3x8x8")


def test_caches_as_they_lie_about_are_read(tmp_path: Path) -> None:
    """TensorRT writes no leading zeros; tf2onnx's names hold colons; scripts end lines as Windows does and name no version."""
    path = tmp_path / "old.cache"
    path.write_bytes(
        b"\xef\xbb\xbfTRT-8XXX-MinMaxCalibration\r\ninput_1:0: 3c010a14\r\n(Unnamed Layer* 64) [Shuffle]_output: 0\r\n"
        b"/layer1/layer1.0/conv1/Conv_output_0: 0x3fb6163c\r\n\r\n"
    )
    cache = read_cache(path)
    assert is_cache(path) and (cache.version, cache.method) == ("8XXX", "min-max")
    assert list(cache.scales) == ["input_1:0", "(Unnamed Layer* 64) [Shuffle]_output", "/layer1/layer1.0/conv1/Conv_output_0"]
    assert list(cache.scales.values())[:2] == [struct.unpack(">f", bytes.fromhex("3c010a14"))[0], 0.0]
    path.write_text("TRT-101401-EntropyCalibration2\na: 3c010a14\na: 3c010a14\n")
    assert read_cache(path).version == "101401"
    path.write_text("TRT-7000-EntropyCalibration2\na: 3c010a14\na: 3d010a14\n")
    with pytest.raises(CalibrationError, match="line 3 gives 'a' a second scale"):
        read_cache(path)


def test_what_is_no_source_is_refused(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    """A cache that is not there was once read as a command line without flags: an FP32 recipe came out, without a word."""
    path, _ = network
    for wrong in ("missing.cache", "calibration table", "x" * 400):
        with pytest.raises(RecipeError, match="is no file that is here"):
            migrate([wrong], tmp_path / "new.toml", path)
    long = f"trtexec --onnx={path.name} --fp16 " + "--verbose " * 40  # as a path it has a name too long for any file
    assert migrate([long], tmp_path / "new.toml", path).recipe.is_file()
    with pytest.raises(RecipeError, match="2 builds were given"):
        migrate(["trtexec --fp16", "trtexec --int8"], tmp_path / "two.toml", path)


def test_what_no_file_tells_stays_open_in_the_recipe(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    """Written down as if it had been said, ImageNet's mean would be taken for the old pipeline's without a word."""
    path, _ = network
    migrate([f"trtexec --onnx={path} --fp16"], tmp_path / "new.toml")
    recipe = Recipe.load(tmp_path / "new.toml")
    assert "mean" in recipe.assumed and "std" in recipe.assumed and "size" not in recipe.assumed


def write_open(path: Path, height: int | str = "H") -> Path:
    """A classifier of images of any width, and of any height unless one is given."""
    x = ir.Value(name="input", shape=ir.Shape(["N", 3, height, "W"]), type=ir.TensorType(ir.DataType.FLOAT))
    mean = ir.node("GlobalAveragePool", [x], name="mean")
    flat = ir.node("Flatten", [mean.outputs[0]], name="flat")
    flat.outputs[0].shape, flat.outputs[0].type = ir.Shape(["N", 3]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], flat.outputs, nodes=[mean, flat], opset_imports={"": 17}, name="open")
    ir.save(ir.Model(graph, ir_version=8), path)
    return path


@pytest.mark.parametrize(("height", "size"), [("H", None), (320, (320, 320))])
def test_a_size_that_the_file_leaves_open_is_not_written_down_as_if_it_were_told(
    height: int | str, size: tuple[int, int] | None, tmp_path: Path
) -> None:
    """224 stood in the recipe, and not a word of it."""
    model = write_open(tmp_path / "open.onnx", height)
    found = migrate([f"trtexec --onnx={model} --fp16"], tmp_path / "new.toml")
    recipe = Recipe.load(tmp_path / "new.toml")
    assert ("size" in recipe.assumed) == (size is None) == any("224 x 224 is assumed" in line for line in found.said)
    assert size is None or recipe.preprocess.size == size


SCRIPT = """import tensorrt as trt
H = 160
config = builder.create_builder_config()
profile.set_shape("mask", (1, 1), (1, 1), (1, 1))
profile.set_shape("input", (1, 3, 160, 192), (8, 3, H, 192), (32, 3, H, 192))
engine = builder.build_serialized_network(network, config)  # of MODEL
"""


@pytest.mark.parametrize(
    ("source", "other"),
    [
        ("trtexec --onnx=MODEL --fp16 --shapes=mask:4x1,input:8x3x160x192", ""),
        ("trtexec --onnx=MODEL --minShapes=x:1x3x80x96 --optShapes=x:8x3x160x192 --maxShapes=x:8x3x160x192",
         "[N, 3, 80, 96] is not"),
        ("polygraphy convert MODEL --trt-min-shapes 'm:[1]' 'input:[1,3,160,192]' --trt-opt-shapes 'm:[1]' 'input:[1,3,160,192]' "
         "--trt-max-shapes 'm:[1]' 'input:[1,3,160,192]' -o x.plan", ""),
        (SCRIPT, ""),
    ],
)  # fmt: skip
def test_a_size_that_the_file_leaves_open_is_that_of_the_old_shapes(source: str, other: str, tmp_path: Path) -> None:
    model = write_open(tmp_path / "open.onnx")
    found = migrate([source.replace("MODEL", str(model))], tmp_path / "new.toml", model)
    recipe = Recipe.load(tmp_path / "new.toml")
    assert recipe.preprocess.size == (160, 192) and "size" not in recipe.assumed
    [line] = [line for line in found.said if "[N, 3, 160, 192] is taken from the old shapes" in line]
    assert other in line


def test_old_shapes_that_contradict_the_file_or_each_other_are_refused(tmp_path: Path) -> None:
    for height, sizes, words in (
        (224, ["x:1x3x320x320"], r"the old opt shape of 'x' is \[N, 3, 320, 320\], and .*open.onnx takes \[N, 3, 224, \?\]"),
        ("H", ["input:1x320"], r"'input' is \[N, 320\], and .*open.onnx takes \[N, 3, \?, \?\]"),
        ("H", ["input:1x320x320x3"], r"'input' is \[N, 320, 320, 3\], and"),
        ("H", ["x:1x3x320x320", "x:1x3x160x320"], r"images of several sizes \(160 and 320\), and an engine here takes one"),
    ):
        model = write_open(tmp_path / "open.onnx", height)
        line = f"trtexec --onnx={model} --fp16 {' '.join(f'--shapes={size}' for size in sizes)}"
        with pytest.raises(RecipeError, match=words):
            migrate([line], tmp_path / "new.toml")


def test_layers_with_a_type_of_their_own_are_kept_and_those_unknown_named(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    path, graph = network
    last, first = (str(layers_of(graph)[index].name) for index in (2, 0))
    line = f'trtexec --onnx={path} --int8 --fp16 --layerPrecisions="{last}:fp32,{first}:fp16,gone.conv:fp32,*:int8,odd:int4"'
    found = migrate([line], tmp_path / "new.toml")
    recipe = Recipe.load(tmp_path / "new.toml")
    assert recipe.precision.keep == (last, first) and recipe.precision.keep_fp32 == (last,)
    said = " ".join(found.said)
    assert "gone.conv" in said and "odd:int4: 'int4' is no type" in said and "all layers in int8" in said


def test_the_input_of_the_cache_tells_that_pictures_came_in_another_way(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    path, graph = network
    name = str(graph.graph.inputs[0].name)
    for reach, likely in ((1.0, "pixels / 255"), (255.0, "0 to 255"), (2.6, None)):
        cache = write_cache(tmp_path / "old.cache", {name: reach / 127})
        said = [text for text in migrate([str(cache)], tmp_path / "new.toml", path).said if "scale of the input" in text]
        assert len(said) == (likely is not None) and (likely is None or likely in said[0])


def test_scales_of_another_order_of_magnitude_are_doubted_where_no_images_prove_them(
    network: tuple[Path, ir.Model], tmp_path: Path
) -> None:
    """Magnitudes or inverses in a scale's place gave an engine that answers every picture alike, without a word."""
    path, graph = network
    recipe = Recipe.parse(f'name = "net"\n[reference]\nonnx = "{path}"\n[preprocess]\nsize = [16, 16]')
    seen = magnitudes(graph, synthetic(recipe.preprocess, 4).batches(1))
    read = [str(node.inputs[0].name) for node in layers_of(graph) if node.inputs[0] is not None]
    right = {name: seen[name] / 127 for name in read}
    for factor, count in ((1.0, 0), (127.0, 2), (1e15, 2), (1e-9, 2)):
        scales = {name: factor * scale if name != read[0] else scale for name, scale in right.items()}
        found = migrate([str(write_cache(tmp_path / "old.cache", scales))], tmp_path / "new.toml", path)
        said = [text for text in found.said if "times off what synthetic pictures give" in text]
        assert len(said) == bool(count) and all(f"WARNING: {count} of 3 scales" in text for text in said)


def test_a_cache_that_fits_nothing_says_why(network: tuple[Path, ir.Model], tmp_path: Path) -> None:
    """Each was said to be of another network, or to have no tensor that is in the file."""
    path, graph = network
    first = layers_of(graph)[0]
    assert first.inputs[0] is not None
    for scales, words in (
        ({}, "holds no scale"),
        ({str(first.inputs[0].name): 0.0}, "every scale that INT8 layers need is 0"),
        ({str(first.outputs[0].name): 0.1}, "no scale of what INT8 layers read"),
        ({"[bold]x[/bold]" * 5000: 0.1}, r"belongs to another network: it has (\[bold\]x\[/bold\]){4}.{0,20};"),
    ):
        with pytest.raises(CalibrationError, match=words):
            migrate([str(write_cache(tmp_path / "old.cache", scales))], tmp_path / "new.toml", path)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large.onnx").write_bytes(bytes(1 << 19))
    for name, words in (("empty", "is empty"), ("large.onnx", "name an ONNX file by --onnx")):
        with pytest.raises(RecipeError, match=words):
            migrate([str(tmp_path / name)], tmp_path / "new.toml", path)


def test_shapes_are_read_whatever_the_input_is_called() -> None:
    line = read_line("trtexec --onnx=m.onnx --shapes=input_1:0:4x3x8x8,mask:4x1 --memPoolSize=dlaSRAM:1,workspace:1.5G")
    assert line.build == {"target": "tensorrt", "batch": [4, 4, 4], "workspace_mib": 1536}
    assert line.said == ("--memPoolSize dlaSRAM:1: there is no key for this pool",)


def test_several_profiles_stay_several() -> None:
    shapes = [
        f"--{kind}Shapes=x:{n}x3x8x8"
        for group in ((1, 2, 4), (5, 6, 8))
        for kind, n in zip(("min", "opt", "max"), group, strict=True)
    ]
    line = read_line("trtexec --onnx=m.onnx --best " + " ".join(shapes))
    assert line.build["batch"] == [[1, 2, 4], [5, 6, 8]] and line.precision == {"compute": "fp16", "int8": True}


def test_the_line_that_export_prints_reads_back_as_the_recipe() -> None:
    text = 'name = "net"\n[reference]\nonnx = "n.onnx"\n[preprocess]\nsize = [16, 16]\n[build]\nbatch = {batch}'
    for batch in ([1, 8, 32], [[1, 2, 4], [5, 6, 8]]):
        line = trtexec_line(Path("typed.onnx"), Recipe.parse(text.format(batch=batch)), Target("tensorrt"), "image")
        assert line.startswith("trtexec --onnx=typed.onnx --stronglyTyped") and "--saveEngine=typed.plan" in line
        assert read_line(line).build["batch"] == batch and read_line(line).said == ()
    recipe = Recipe.parse(text.format(batch=[1, 8, 32]))
    assert "--minShapes=image:1x3x16x16" in trtexec_line(Path("t.onnx"), recipe, Target("tensorrt"), "image")


def test_a_graph_with_the_pairs_of_a_cpu_gets_no_trtexec_line() -> None:
    """TensorRT refuses zero points, which they have; without pairs any target's graph will do."""
    recipe = Recipe.parse('name = "m"\n[reference]\narch = "resnet18"\nweights = "random:0"\n[calibration]\nranges = "r.json"\n')
    int8 = msgspec.structs.replace(recipe, precision=msgspec.structs.replace(recipe.precision, int8=True))
    assert trtexec_line(Path("m.onnx"), int8, Target("cpu"), "x") == ""
    assert "--stronglyTyped" in trtexec_line(Path("m.onnx"), int8, Target("tensorrt"), "x")
    assert "--stronglyTyped" in trtexec_line(Path("m.onnx"), recipe, Target("cpu"), "x")
