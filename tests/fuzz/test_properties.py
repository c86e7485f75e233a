"""Whatever a writer of ours writes, its reader gives back: recipes, ranges, manifests, results, packed engines."""

from __future__ import annotations

import math
import string
import tempfile
import tomllib
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.fuzz.engines import tiny
from toolkit import types
from toolkit.calibration.ranges import Origin, Ranges, TensorRange
from toolkit.engine import layout
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError, ToolkitError
from toolkit.harness.answers import Answers
from toolkit.harness.measurement import Block, Flag, Measurement
from toolkit.harness.results import Results
from toolkit.harness.roofline import Peaks
from toolkit.harness.verdict import Verdict
from toolkit.manifest import MANIFEST, Baseline, Manifest, Profile
from toolkit.recipe import Accept, Build, Calibration, Precision, Preprocess, Recipe, Reference
from toolkit.recipe.write import recipe_toml
from toolkit.types import TensorSpec

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
REAL = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**40)


def some(kind: Any, **known: Any) -> Any:
    """Structs of `kind` that it accepts: each field as its type says, unless `known` gives a strategy for it."""
    fields = msgspec.structs.fields(kind)
    hints = typing.get_type_hints(kind)

    @st.composite
    def built(draw: Any) -> Any:
        values = {}
        for field in fields:
            if field.required or draw(st.booleans()):
                values[field.name] = draw(known.get(field.name, _of(hints[field.name])))
        try:
            return kind(**values)
        except ValueError:
            assume(False)

    return built()


def _of(hint: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is tuple:
        return st.lists(_of(inner[0]), max_size=3).map(tuple) if inner[-1] is Ellipsis else st.tuples(*map(_of, inner))
    if origin is dict:
        return st.dictionaries(TEXT, _of(inner[1]), max_size=3)
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if inner:  # a union
        return st.one_of(*map(_of, inner))
    return some(hint)


_PLAIN: dict[Any, Any] = {
    str: TEXT, int: COUNT, float: REAL, bool: st.booleans(), type(None): st.none(),
    Any: st.one_of(TEXT, COUNT, st.booleans(), REAL),
}  # fmt: skip
SIDE = st.integers(1, 512)
POSITIVE = st.floats(1e-6, 1e6)
MEAN = st.floats(-1e30, 1e30)  # with which float32 holds the pixels of every scale and deviation above
PREPROCESS = st.one_of(
    st.just(Preprocess()),
    st.builds(
        Preprocess, size=st.tuples(SIDE, SIDE), mean=st.tuples(*[MEAN] * 3), std=st.tuples(*[POSITIVE] * 3), scale=POSITIVE,
        color=st.sampled_from(["RGB", "BGR"]), interpolation=st.sampled_from(["nearest", "bicubic"]), exif=st.booleans(),
    ),
    st.builds(Preprocess, size=st.tuples(SIDE, SIDE), mean=st.tuples(MEAN), std=st.tuples(POSITIVE), color=st.just("L")),
)  # fmt: skip
BATCH = st.tuples(st.integers(1, 4), st.integers(4, 8), st.integers(8, 64))
RECIPE = st.builds(
    Recipe,
    name=NAME,
    reference=st.one_of(
        st.builds(Reference, arch=st.just("resnet18"), weights=TEXT.map("random:{}".format), ema=st.sampled_from([None, True])),
        st.builds(Reference, onnx=NAME.map("/a/b/{}.onnx".format), output=TEXT.map("/{}".format), input=TEXT.filter(bool)),
    ),
    preprocess=PREPROCESS,
    precision=st.builds(Precision, int8=st.just(True), keep=st.lists(TEXT, max_size=3).map(tuple), methods=st.dictionaries(
        TEXT, st.sampled_from(["minmax", "entropy", "mse"]), max_size=3)),
    calibration=st.builds(Calibration, data=TEXT.map("packaged:{}".format), images=st.integers(1, 10**6)),
    build=st.builds(Build, batch=st.one_of(BATCH, st.lists(BATCH, min_size=1, max_size=3).map(tuple)), threads=st.integers(1, 9)),
    accept=st.builds(Accept, max_top1_drop=st.sampled_from([0.0, 0.5, 1e-9, math.inf]), min_agreement=st.floats(0, 1)),
    notes=st.lists(TEXT, max_size=3).map(tuple),
)  # fmt: skip


@given(RECIPE)
@settings(max_examples=25)
def test_a_recipe_that_is_written_is_read_again(recipe: Recipe) -> None:
    again = Recipe.parse(recipe_toml(recipe, Path("/a/b")), "x").resolve(Path("/a/b"))
    assert again.notes[: len(recipe.notes)] == recipe.notes  # one more may say what was assumed
    assert msgspec.structs.replace(again, notes=recipe.notes) == recipe


@given(st.text(string.printable, max_size=200))
@settings(max_examples=50)
def test_any_text_is_a_recipe_or_refused(text: str) -> None:
    try:
        recipe = Recipe.parse(text)
    except ToolkitError:
        return
    assert recipe.name == tomllib.loads(text)["name"]


RANGE = some(
    TensorRange, min=st.floats(-3e38, 0), max=st.floats(0, 3e38), thresholds=st.dictionaries(TEXT, st.floats(0, 3e38), max_size=3)
)


@given(some(Origin), st.dictionaries(TEXT, RANGE, max_size=3), st.data())
@settings(max_examples=25)
def test_ranges_that_are_written_are_read_again(origin: Origin, tensors: dict[str, TensorRange], data: Any) -> None:
    ranges = data.draw(some(Ranges, origin=st.just(origin), tensors=st.just(tensors), version=st.just(1)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ranges.json")
        ranges.write(path)
        again = Ranges.read(path)
        assert again == ranges
        first = path.read_bytes()
        again.write(path)
        assert path.read_bytes() == first



def fitted(manifest: Manifest) -> Manifest:
    """Its input takes what its pictures become: others are refused."""
    shape = ("N", *manifest.preprocess.input_shape)
    return msgspec.structs.replace(manifest, inputs=(msgspec.structs.replace(manifest.inputs[0], shape=shape),))


SPEC = st.builds(TensorSpec, name=TEXT, dtype=st.sampled_from(["float32", "uint8"]), shape=st.just(("N", 3, 8, 8)))
MANIFESTS = some(
    Manifest,
    name=st.from_regex(types.NAME, fullmatch=True),
    target=st.sampled_from(["cpu", "openvino", "cuda", "tensorrt", "rtx", "rtx:sm89+"]),
    inputs=st.tuples(SPEC),
    outputs=st.tuples(st.builds(TensorSpec, name=TEXT, dtype=st.just("float32"), shape=st.just(("N", 2)))),
    profiles=st.builds(Profile, min=st.just(1), opt=st.integers(1, 8), max=st.integers(8, 64)).map(lambda profile: (profile,)),
    preprocess=PREPROCESS,
    classes=st.one_of(st.none(), st.tuples(TEXT, TEXT)),
    outputs_are=st.sampled_from(["logits", "probabilities", "multilabel-logits"]),
    recipe=st.dictionaries(TEXT, TEXT, max_size=3),
    settings=st.dictionaries(TEXT, TEXT, max_size=3),
    baseline=st.one_of(st.none(), some(Baseline)),
    seal=st.just("0" * 64),
    files=st.just({}),
    version=st.just(2),
).map(fitted)


@given(MANIFESTS, st.binary(max_size=32))
@settings(max_examples=25)
def test_a_manifest_that_is_written_is_read_again_and_no_bit_of_it_may_change(manifest: Manifest, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.onnx").write_bytes(content)
        written = manifest.write(Path(folder))
        text = Path(folder, MANIFEST).read_bytes()
    assert Manifest.decode(text, "x") == written
    assert msgspec.structs.replace(written, files={}, seal="0" * 64) == manifest
    at = len(content) * 7919 % len(text)
    with pytest.raises(EngineError):
        Manifest.decode(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :], "x")


MEASUREMENTS = some(
    Measurement,
    batch=st.integers(1, 2**40),
    joules=st.one_of(st.none(), st.floats(0, 1e300)),
    blocks=st.lists(some(Block, samples_ns=st.lists(COUNT, max_size=3).map(tuple)), max_size=3).map(tuple),
    flags=st.lists(some(Flag), max_size=2).map(tuple),
)


VERDICTS = some(Verdict, agreement=st.floats(0, 1), images=st.integers(3, 2**40), margins=st.just(()))
ANSWERS = st.builds(
    lambda rows, labeled: Answers(
        engine="x", data="", top1=tuple(row[0] for row in rows),
        labels=tuple(row[1] for row in rows) if labeled else None, ranks=tuple(row[2] for row in rows) if labeled else None,
    ),
    st.lists(st.tuples(COUNT, COUNT, COUNT), max_size=3), st.booleans(),
)  # fmt: skip
PEAKS = st.builds(Peaks, macs=st.dictionaries(TEXT, POSITIVE, max_size=3), bytes=POSITIVE, threads=COUNT, how=TEXT)
RESULTS = some(
    Results,
    measurements=st.lists(MEASUREMENTS, max_size=3).map(tuple),
    verdicts=st.lists(VERDICTS, max_size=2).map(tuple),
    answers=st.lists(ANSWERS, max_size=2).map(tuple),
    peaks=st.one_of(st.none(), PEAKS),
    moments=st.just(()),
    manifests=st.just({}),
    work=st.just({}),
    version=st.just(1),
)


@given(RESULTS)
@settings(max_examples=20)
def test_results_that_are_written_are_read_again(results: Results) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        results.write(path)
        assert Results.read(path) == results


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("packed")
    return Engine.open(tiny(place / "tiny")).pack(place / "x.engine").read_bytes()


@given(extra=st.dictionaries(NAME.map("{}.bin".format), st.binary(max_size=64), max_size=3))
@settings(max_examples=25)
def test_a_packed_engine_holds_what_its_folder_held(packed: bytes, extra: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place, "a.engine").write_bytes(packed)
        manifest, contents = layout.read(Path(place, "a.engine"))
        folder = Path(place, "engine")
        folder.mkdir()
        for name, data in {**contents, **extra}.items():
            (folder / name).write_bytes(data)
        manifest.write(folder)
        again = Engine.open(Engine.open(folder).pack(Path(place, "b.engine")))
        assert {name: again.contents[name] for name in extra} == extra
        assert again.contents == Engine.open(folder).contents


@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
@settings(max_examples=25)
def test_no_bit_of_what_a_packed_engine_holds_may_change(packed: bytes, at: int, bit: int) -> None:
    """A bit of the archive's own bookkeeping (a date, a flag) may; then all that the engine holds is as it was."""
    at %= len(packed)
    changed = packed[:at] + bytes([packed[at] ^ 1 << bit]) + packed[at + 1 :]
    with tempfile.TemporaryDirectory() as place:
        Path(place, "a.engine").write_bytes(packed)
        Path(place, "b.engine").write_bytes(changed)
        try:
            found = Engine.open(Path(place, "b.engine")).contents
        except EngineError:
            return
        assert found == Engine.open(Path(place, "a.engine")).contents
