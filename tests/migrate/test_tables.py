"""Ranges without a cache's first line: each form is taken for what it is and said to be, or refused by its line or tensor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.migrate.test_migrate import hexadecimal, layers_of, network  # noqa: F401  # a fixture
from toolkit.calibration import Ranges
from toolkit.errors import CalibrationError, RecipeError
from toolkit.migrate.flat import rows_of
from toolkit.migrate.migrate import migrate
from toolkit.migrate.sources import read_sources
from toolkit.migrate.tables import BARE, ENDS, HEADLESS, is_table, read_scales
from toolkit.migrate.tables import SCALES as SCALED

REACH = {"x": 2.5, "/layer1/Conv_output_0": 5.0, "(Unnamed Layer* 8) [Shuffle]_output": 0.5}
SCALES = {name: value / 127 for name, value in REACH.items()}


def aimet(value: float) -> list[dict[str, Any]]:
    ends = {"max": value, "min": -value, "offset": -128, "scale": value / 127}
    return [{"bitwidth": 8, "dtype": "int", "is_symmetric": "True", **ends}]


def wrapped(value: float) -> dict[str, Any]:
    """As ONNX Runtime writes a range of two arrays."""
    ends = {"lowest": -value / 2, "highest": value}
    arrays = {key: {"CLS": "numpy.array", "data": [end], "dtype": "float32"} for key, end in ends.items()}
    return {"CLS": "TensorData", "data": arrays}


TABLES = {
    "a cache without its first line": "\n".join(f"{name}: {hexadecimal(scale)}" for name, scale in SCALES.items()),
    "TensorRT's sampleINT8API": "\n".join(f"{name}: {value}" for name, value in REACH.items()),
    "ONNX Runtime's text": "".join(f"{name} {value}\r\n" for name, value in REACH.items()),
    "bare": json.dumps(REACH),
    "text for numbers": json.dumps({"act_quant_info": {name: str(value) for name, value in REACH.items()}}),
    "MQBench": json.dumps({"tensorrt": {"blob_range": REACH}}),
    "pairs": json.dumps({name: [-value, value / 2] for name, value in REACH.items()}),
    "min and max": json.dumps({name: {"min": -value / 3, "max": value} for name, value in REACH.items()}),
    "scales by name": json.dumps({name: {"scale": scale, "zero_point": 0} for name, scale in SCALES.items()}),
    "AIMET": json.dumps({"activation_encodings": {name: aimet(value) for name, value in REACH.items()}, "param_encodings": {}}),
    "ONNX Runtime's JSON": json.dumps({"CLS": "TensorsData", "data": {name: wrapped(value) for name, value in REACH.items()}}),
}


WORDS = {
    "a cache without its first line": HEADLESS,
    "scales by name": SCALED,
    **dict.fromkeys(("pairs", "min and max", "AIMET", "ONNX Runtime's JSON"), ENDS),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_form_gives_the_same_scales_and_says_what_it_was_taken_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ranges.txt"
    path.write_bytes(TABLES[kind].encode())
    assert is_table(path)
    found = read_scales(path)
    assert found.scales.keys() == REACH.keys()
    np.testing.assert_allclose([found.scales[name] for name in REACH], list(SCALES.values()), rtol=1e-6)
    assert found.source == f"ranges.txt: {WORDS.get(kind, BARE)}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: 3c010a14\ny: 0.5\n", "both hexadecimal scales and decimal fractions"),
        ("x 0.5\ny twelve\n", r"line 2 is no range: 'y twelve'"),
        ("x: 12\n", "line 1: 'x: 12' is neither a float32 in hexadecimal nor a decimal fraction"),
        ("x 0.5\nx 0.6\n", "line 2 gives 'x' a second range"),
        ("x: -0.5\n", "-0.5 is no range of 'x'"),
        ('{"x": 0.5, "y": [1, 2, 3]}', r"tells no range of 'y' in a form that is known: \[1, 2, 3\]"),
        ('{"x": {"scale": 0.1, "zero_point": 3}}', "'x' has a zero point"),
        ('{"x": {"bitwidth": 16, "min": -1, "max": 1}}', "'x' is of 16 bits"),
        ('{"x": NaN}', "is no JSON|no range of 'x'"),
        ('{"origin": {}, "tensors": {}}', "is the toolkit's own"),
        ('{"x": 0.5', "is no JSON"),
        ("{}", "holds no ranges"),
    ],
)
def test_what_is_in_no_known_form_is_refused_by_name(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "ranges.txt"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=words):
        read_scales(path)


def test_a_command_line_a_script_and_a_binary_are_no_tables(tmp_path: Path) -> None:
    for text in ("trtexec --onnx=m.onnx --fp16 --duration 5.0", "import tensorrt as trt\nx = 1.0\nbuild()\n", ""):
        (tmp_path / "one").write_text(text)
        assert not is_table(tmp_path / "one")
    (tmp_path / "calibration.flatbuffers").write_bytes(b"\x10\0\0\0\0\0\x0a\0")
    with pytest.raises(RecipeError, match=r"calibration\.flatbuffers is binary"):
        read_sources([str(tmp_path / "calibration.flatbuffers")])
    with pytest.raises(CalibrationError, match=r"calibration\.flatbuffers is binary"):
        read_scales(tmp_path / "calibration.flatbuffers")
    (tmp_path / "broken.json").write_text('{"x": ')
    with pytest.raises(CalibrationError, match=r"broken\.json is no JSON"):
        read_sources([str(tmp_path / "broken.json")])


def test_what_onnxruntime_writes_becomes_the_ranges_of_its_network(
    network: tuple[Path, ir.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """Its own calibrator and its own writer; the table beside the line of trtexec that names it."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator, write_calibration_table

    path, graph = network
    random = np.random.default_rng(0)
    batches = iter([{str(graph.graph.inputs[0].name): random.normal(size=(2, 3, 16, 16)).astype(np.float32)} for _ in range(3)])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(batches, None)

    monkeypatch.chdir(tmp_path)
    augmented = str(tmp_path / "augmented.onnx")
    calibrator = create_calibrator(path, augmented_model_path=augmented, calibrate_method=CalibrationMethod.MinMax)
    calibrator.set_execution_providers(["CPUExecutionProvider"])
    calibrator.collect_data(Reader())
    data = calibrator.compute_data()
    write_calibration_table(data, dir=".")
    assert {"calibration.cache", "calibration.json"} <= set(os.listdir())
    seen = str(next(node.inputs[0].name for node in layers_of(graph) if node.inputs[0] is not None))
    ends = [end.item() for end in data[seen].range_value]
    # Its text holds the upper end alone, and its provider takes that for the range: so did the engine that is left behind.
    wanted = {"calibration.cache": max(ends), "calibration.flatbuffers": max(ends), "calibration.json": max(map(abs, ends))}
    for name, want in wanted.items():
        found = migrate([f"trtexec --onnx={path} --int8 --calib={name}"], tmp_path / "new.toml")
        assert found.ranges is not None and Ranges.read(found.ranges).tensors[seen].max == pytest.approx(want, rel=1e-5)
        assert any(f"scales taken over from {name}: " in text for text in found.said)


def flat(rows: list[tuple[str, str]]) -> bytes:
    """As ONNX Runtime writes them."""
    import flatbuffers
    from onnxruntime.quantization.CalTableFlatBuffers import KeyValue, TrtTable

    builder, made = flatbuffers.Builder(64), []
    for name, value in rows:
        key, text = builder.CreateString(name), builder.CreateString(value)
        KeyValue.Start(builder)
        KeyValue.AddKey(builder, key)
        KeyValue.AddValue(builder, text)
        made.append(KeyValue.End(builder))
    TrtTable.StartDictVector(builder, len(made))
    for one in made:
        builder.PrependUOffsetTRelative(one)
    entries = builder.EndVector()
    TrtTable.Start(builder)
    TrtTable.AddDict(builder, entries)
    builder.Finish(TrtTable.End(builder))
    return bytes(builder.Output())


def test_a_damaged_flatbuffer_is_no_table_and_never_a_wrong_one() -> None:
    """FlatBuffers have no checksum: whatever is cut or overwritten gives an answer or none, soon, and no other error."""
    rows = [(name, str(value)) for name, value in REACH.items()]
    data = flat(rows)
    assert rows_of(data) == dict(rows)
    assert rows_of(flat([("x", "0.5"), ("x", "0.6")])) is None and rows_of(flat([])) is None
    random = np.random.default_rng(0)
    for size in range(len(data)):
        assert rows_of(data[:size]) in (None, dict(rows))
    for _ in range(3000):
        harmed = np.frombuffer(data, np.uint8).copy()
        harmed[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
        found = rows_of(harmed.tobytes())
        assert found is None or sum(map(len, (*found, *found.values()))) <= 2 * len(data)
