"""A recipe says what is wrong with it: the key, the value, what is allowed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

from toolkit.errors import RecipeError
from toolkit.recipe import Recipe
from toolkit.types import Target

BASE = 'name = "x"\n[reference]\narch = "resnet18"\nweights = "random:1"\n'
ENGINES = sorted((Path(__file__).parents[2] / "engines").glob("*.toml"))


@pytest.mark.parametrize("path", ENGINES, ids=lambda p: p.stem)
def test_every_recipe_in_engines_is_read(path: Path) -> None:
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[precision]\nint9 = true", ["int9", "True", "[precision]", "int8", "keep"]),
        ('[precision]\ncompute = "fp8"', ["precision.compute", "fp8", "fp32, fp16"]),
        ('[calibration]\nimages = "many"', ["calibration.images", "many", "int"]),
        ("[calibration]\nimages = 0", ["[calibration]", "must be 1 to"]),
        ("[calibration]\nimages = 99999999999", ["[calibration]", "must be 1 to"]),
        ("[preprocess]\nmean = [nan, 0, 0]", ["[preprocess]", "finite"]),
        ("[preprocess]\nstd = [inf, 1, 1]", ["[preprocess]", "finite"]),
        ("[preprocess]\nscale = 0", ["[preprocess]", "not 0"]),
        ("[preprocess]\nscale = 1e37", ["[preprocess]", "float32 cannot hold"]),
        ("[preprocess]\nscale = 1e-50", ["[preprocess]", "float32 cannot hold"]),
        ("[preprocess]\nmean = [1e39, 0, 0]", ["[preprocess]", "float32 cannot hold"]),
        ("[preprocess]\nstd = [1e-50, 1, 1]", ["[preprocess]", "float32 cannot hold"]),
        ("[preprocess]\nstd = [1, 1, 1e300]", ["[preprocess]", "float32 cannot hold"]),
        ("[accept]\nmax_top1_drop = nan", ["[accept]", "`max_top1_drop` must be 0 or more"]),
        ("[accept]\nmin_agreement = nan", ["[accept]", "`min_agreement` 0 to 1"]),
        ("[accept]\nmax_p99_ms = nan", ["[accept]", "`max_p99_ms` above 0"]),
        ("[accept]\nimages = -1", ["[accept]", "`images` must be at least 1"]),
        ("[build]\nthreads = 100000", ["[build]", "`threads` must be 1 to 1024"]),
        ("[build]\nworkspace_mib = -5", ["[build]", "`workspace_mib` must be 1 to"]),
        ("[build]\nbatch = [1, 8, 99999999999]", ["[build]", "min <= opt <= max, from 1 to"]),
        ('[calibration]\nmethod = "magic"', ["magic", "minmax, entropy, percentile, mse"]),
        ("[calibration]\npercentile = 12.0", ["99.9, 99.99 or 99.999"]),
        ("[preprocess]\nmean = [1.0]", ["mean", "3 value(s)", "RGB"]),
        ("[preprocess]\nsize = [224]", ["preprocess.size", "length 2"]),
        ("[build]\nbatch = [8, 1, 2]", ["[8, 1, 2]", "min <= opt <= max"]),
        ("[build]\nbatch = [1, 2]", ["[min, opt, max]"]),
        ('[build]\ntarget = "gpu"', ["gpu", "cpu, cuda, tensorrt, rtx"]),
        ('[precision]\nint8 = "yes"', ["precision.int8", "yes", "bool"]),
        ('[precision]\nkeep = ["fc"]', ["keep", "int8 = true"]),
        ("[accept]\nmin_agreement = 98.0", ["min_agreement", "0 to 1"]),
        ('[preprocess]\nlayout = "NHWC"', ["PyTorch ResNet", "NCHW"]),
        ("[precision]\nint8 = true", ["int8 = true", "calibration.data"]),
        ("[oops]\n", ["oops", "top level", "calibration"]),
        ("not toml", ["not valid TOML"]),
    ],
)
def test_what_is_wrong_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(BASE + text, where="my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("", ["either"]),
        ('arch = "resnet18"', ["needs `weights`"]),
        ('arch = "resnet18"\nweights = "a"\nonnx = "b"', ["either"]),
        ('onnx = "b"\nweights = "a"', ["belongs to `arch`"]),
        ('arch = "resnet19"\nweights = "a"', ["resnet19", "resnet152"]),
    ],
)
def test_a_reference_is_one_thing(reference: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(f'name = "x"\n[reference]\n{reference}\n')
    assert all(word in str(caught.value) for word in words)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = BASE.replace("random:1", "weights.pth") + '[accept]\ndata = "val"\n[calibration]\ndata = "packaged:fashion-train"\n'
    (tmp_path / "r.toml").write_text(text)
    recipe = Recipe.load(tmp_path / "r.toml")
    assert recipe.reference.weights == str(tmp_path / "weights.pth")
    assert recipe.accept.data == str(tmp_path / "val")
    assert recipe.calibration.data == "packaged:fashion-train"


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff"))
    folder.mkdir()
    (folder / "x.toml").write_text(f'{BASE}[calibration]\ndata = "images"\n')
    with pytest.raises(RecipeError, match=r"UTF-8 text\. Rename"):
        Recipe.load(folder / "x.toml")


@pytest.mark.parametrize("data", ["~nobody-of-this-name/images", "a\\u0000b"])
def test_what_can_be_no_path_is_refused(tmp_path: Path, data: str) -> None:
    (tmp_path / "x.toml").write_text(f'{BASE}[calibration]\ndata = "{data}"\n')
    with pytest.raises(RecipeError, match=r"home folder that is not here|NUL"):
        Recipe.load(tmp_path / "x.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml"):
        Recipe.load(tmp_path / "none.toml")


def test_what_is_written_is_read_again() -> None:
    precision = '[precision]\nint8 = true\nkeep = ["fc"]\n[calibration]\ndata = "packaged:fashion-train"\n'
    recipe = Recipe.parse(BASE + precision + "[build]\nbatch = [[1, 1, 1], [2, 8, 32]]\n")
    assert msgspec.convert(recipe.to_dict(), Recipe) == recipe
    assert recipe.build.profiles == ((1, 1, 1), (2, 8, 32))


def test_the_page_on_recipes_names_every_key_and_its_default() -> None:
    """docs/reference/recipe.md, table by table: the same keys as the structs, and their plain defaults as TOML writes them."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "recipe.md").read_text()
    for field in msgspec.structs.fields(Recipe):
        if field.name == "assumed":  # found when a recipe is read, and not written
            continue
        if not (isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)):
            assert f"{field.name} = " in page
            continue
        section = page.split(f"## `[{field.name}]`")[1].split("\n## ")[0]
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
        told = {key: row[1] for row in rows for key in re.findall(r"`(\w+)`", row[0])}
        assert set(told) == {inner.name for inner in msgspec.structs.fields(field.type)}, field.name
        for inner in msgspec.structs.fields(field.type):
            plain = isinstance(inner.default, (bool, int, str)) and inner.default is not msgspec.NODEFAULT
            if plain:
                default = str(inner.default).lower() if isinstance(inner.default, bool) else inner.default
                assert told[inner.name] == f"`{default}`", inner.name


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("rtx", Target("rtx", 80, onward=True)),
        ("rtx:sm89+", Target("rtx", 89, onward=True)),
        ("rtx:sm89+sm120", Target("rtx", 89, (120,))),
        ("rtx:sm89", Target("rtx", 89)),
    ],
)
def test_targets_are_read_as_they_are_written(text: str, target: Target) -> None:
    assert Target.parse(text) == target and str(target) == text


def test_targets_have_one_name_each() -> None:
    assert str(Target.parse("rtx:sm80+")) == "rtx" and str(Target.parse("rtx:sm120+sm89")) == "rtx:sm89+sm120"
    assert [str(t) for t in Target.parse_many("cpu,rtx:sm86,sm89+sm120,rtx")] == ["cpu", "rtx:sm86", "rtx:sm89+sm120", "rtx"]
    for wrong in ("rtx:sm", "rtx:sm89+sm120+", "tensorrt:sm89", "rtx:89", "rtx+"):
        with pytest.raises(RecipeError, match="is not known"):
            Target.parse(wrong)
