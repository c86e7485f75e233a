"""Builder scripts of TensorRT 10 and before are read by their syntax tree; nothing in them runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.bounds import bounds
from toolkit.errors import RecipeError, ToolkitError
from toolkit.migrate.script import is_script, read_script
from toolkit.migrate.sources import read_sources

SCRIPT = '''
"""Builds an engine. \\d is no escape."""
import tensorrt as trt
raise SystemExit("this script was run")

GiB = 1 << 30
KEEP = ["/head/fc", "conv1"]
BATCH = 4

class Calibrator(trt.IInt8EntropyCalibrator2):
    def read_calibration_cache(self):
        return open("old.cache", "rb").read()

def build(path, precision):
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    parser.parse_from_file("net.onnx")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2 * GiB)
    config.set_memory_pool_limit(trt.MemoryPoolType.DLA_MANAGED_SRAM, 1 << 20)
    config.builder_optimization_level = 4
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    if builder.platform_has_fast_fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
        config.int8_calibrator = Calibrator()
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    for layer in network:
        if layer.name in KEEP or layer.name.endswith("/Softmax"):
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)
        if layer.type == trt.LayerType.POOLING:
            layer.precision = trt.DataType.HALF
    network.get_layer(7).precision = trt.float32
    profile = builder.create_optimization_profile()
    inputs = network.get_input(0)
    profile.set_shape("x", (1, 3, 8, 8), [BATCH] + list(inputs.shape[1:]), (2 * BATCH, 3, 8, 8))
    profile.set_shape("mask", (1, 1), (1, 1), (1, 1))
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config)
'''


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(SCRIPT.splitlines(), 1) if text in line)


def test_a_script_becomes_keys_and_what_only_a_run_would_tell_is_listed(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "old.cache").write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    assert is_script(SCRIPT)
    found = read_script(SCRIPT, tmp_path)
    assert (found.onnx, found.cache) == (str(tmp_path / "net.onnx"), str(tmp_path / "old.cache"))
    assert found.precision == {"compute": "fp16", "int8": True} and found.calibration == {"method": "entropy"}
    assert found.build == {"target": "tensorrt", "batch": [1, 4, 8], "workspace_mib": 2048, "optimization_level": 4}
    assert found.layers == (("/head/fc", "fp32"), ("conv1", "fp32"), ("*/Softmax", "fp32"))
    said = " | ".join(found.said)
    assert f"line {line_of('BuilderFlag.INT8')}: INT8 is set where `precision == 'int8'`" in said
    for named in ("OBEY_PRECISION_CONSTRAINTS: removed", "SPARSE_WEIGHTS: not taken over", "DLA_MANAGED_SRAM", "set_output_type"):
        assert named in said
    for unknown in ("layer.type == trt.LayerType.POOLING", "network.get_layer(7)"):
        assert f"`{unknown}`, which only a run of the script would tell" in said


def test_a_script_before_tensorrt_8_and_sizes_that_only_a_run_would_tell(tmp_path: Path) -> None:
    text = "config = builder.create_builder_config()\nbuilder.fp16_mode = True\nbuilder.max_workspace_size = 1 << 28\n"
    text += "builder.max_batch_size = 32\nbuilder.int8_mode = False\nprofile.set_shape('x', shape(1), shape(2), shape(4))\n"
    found = read_script(text, tmp_path)
    assert found.precision == {"compute": "fp16"} and found.build == {"target": "tensorrt", "workspace_mib": 256}
    assert any("max_batch_size" in said for said in found.said) and any("set `build.batch`" in said for said in found.said)
    bound = "size = 1\nsize += 1\nconfig.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)\n"
    assert "set `build.workspace_mib`" in " ".join(read_script(bound, tmp_path).said)


def test_two_branches_are_both_taken_and_both_said(tmp_path: Path) -> None:
    text = "if args.fp16:\n    config.set_flag(trt.BuilderFlag.FP16)\nelse:\n    config.flags = 1 << int(trt.BuilderFlag.INT8)\n"
    found = read_script(text, tmp_path)
    assert found.precision == {"compute": "fp16", "int8": True}
    assert [text.split(":")[0] for text in found.said] == ["line 2", "line 4"] and "not args.fp16" in found.said[1]


def test_a_mode_that_only_a_run_would_tell_is_taken_and_said(tmp_path: Path) -> None:
    text = "builder.fp16_mode = half\nbuilder.int8_mode = builder.platform_has_fast_int8\n"
    found = read_script(text, tmp_path)
    assert found.precision == {"compute": "fp16", "int8": True}
    assert found.said == ("line 1: FP16 is set where `half`: taken as if that held",)
    text = "config.set_flag(trt.BuilderFlag.FP16) if half else config.set_flag(trt.BuilderFlag.INT8)\n"
    found = read_script(text, tmp_path)
    assert [said.partition(" is set where ")[2].partition(":")[0] for said in found.said] == ["`half`", "`not half`"]


def test_layers_that_a_number_or_a_guard_picks_are_said(tmp_path: Path) -> None:
    text = "for i in range(9):\n    layer = network.get_layer(i)\n    if i < 4:\n        layer.precision = trt.float32\n"
    assert read_script(text, tmp_path).said == ("line 4: fp32 for every layer where `i < 4`: look which those are",)
    text = "for layer in network:\n    if layer.name in small:\n        continue\n    layer.precision = trt.float32\n"
    found = read_script(text, tmp_path)
    assert found.layers == () and "`not layer.name in small`, which only a run of the script would tell" in found.said[0]


def test_a_flag_that_is_taken_back_is_not_taken_over(tmp_path: Path) -> None:
    text = "config.flags |= 1 << int(trt.BuilderFlag.INT8)\nconfig.flags &= ~(1 << int(trt.BuilderFlag.FP16))\n"
    found = read_script(text, tmp_path)
    assert found.precision == {"int8": True}
    assert len(found.said) == 1 and found.said[0].startswith("line 2: ") and "taken back" in found.said[0]


@pytest.mark.parametrize("power", ["10 ** 10 ** 10", "1 << (1 << 60)", "0.5", "True // 0"])
def test_no_constant_makes_the_reader_work_or_fail(power: str, tmp_path: Path) -> None:
    text = f"config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, {power})\nconfig.set_flag(trt.BuilderFlag.FP16)\n"
    assert "workspace_mib" not in read_script(text, tmp_path).build


def test_what_is_no_python_is_no_script(tmp_path: Path) -> None:
    for text in ("config.set_flag(trt.BuilderFlag.FP16", "print('hello')", "BuilderFlag " * 3):
        assert not is_script(text)
    with pytest.raises(RecipeError, match="no Python"):
        read_script("x = (", tmp_path)


def test_names_that_double_at_each_step_are_counted_once(tmp_path: Path) -> None:
    """2^15 sums for each of 2,000 calls."""
    text = "".join(f"x{i} = x{i + 1} + x{i + 1}\n" for i in range(15)) + f"x15 = {1 << 20}\n"
    asks = "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, x0)\n" * 2000
    with bounds():
        assert read_script(text + asks, tmp_path).build["workspace_mib"] == 1 << 15


def test_what_a_script_says_is_said_in_bounds(tmp_path: Path) -> None:
    long = " or ".join(f"a{index}" for index in range(3000))
    flags = "".join(f"    config.set_flag(trt.BuilderFlag.FP16)  # {index}\n" for index in range(1000))
    with bounds():
        found = read_script(f"if {long}:\n{flags}", tmp_path)
    assert len(found.said) == 1000
    assert max(map(len, found.said)) < 300
    number = f"config.max_workspace_size = 0x{'f' * 10_000}\n"
    said = "line 1: ...: only a run of the script would tell `...`: set `build.workspace_mib`"
    assert read_script(number, tmp_path).said == (said,)


def test_a_script_that_names_layers_without_end_is_refused(tmp_path: Path) -> None:
    names = ", ".join(f"'l{index}'" for index in range(20_000))
    text = f"for layer in network:\n  if layer.name in [{names}]:\n" + "    layer.precision = trt.float32\n" * 9
    with bounds(), pytest.raises(RecipeError, match="more than 100,000 layers"):
        read_script(text, tmp_path)


def test_a_file_that_a_script_names_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 1 << 40)
    with bounds():
        assert read_script("open('big')\nopen('/proc/kmsg')\n", tmp_path).cache is None


@pytest.mark.parametrize("start", [b"trtexec --fp16", b"TRT-8601-EntropyCalibration2\ninput: 3c010a14\n"])
def test_a_source_of_terabytes_is_refused(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(start)
    os.truncate(tmp_path / "source", 1 << 40)
    with bounds(), pytest.raises(ToolkitError, match="cannot be read: larger than"):
        read_sources([str(tmp_path / "source")])
