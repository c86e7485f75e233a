"""The library's door: what is missing, too old or broken says so, and no name is used that TensorRT 11 has lost."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from toolkit.backends.tensorrt import library as libraries
from toolkit.backends.tensorrt.library import Library, Message
from toolkit.backends.tensorrt.options import configure, refuse_options, settings_of
from toolkit.errors import BackendError, DeviceError, MissingExtra
from toolkit.recipe import Build
from toolkit.types import Target

ROOT = Path(__file__).parents[3]
# The variables that hold the library's objects, wherever they are used in the TensorRT code.
OBJECTS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "reader": "OnnxParserRefitter",
    "serialization": "ISerializationConfig",
    "error": "ParserError",
}
# Only TensorRT-RTX has these; `configure` and `architectures` ask for the kind of library before they use them.
RTX_ALONE = {"ComputeCapability", "IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability"}


def names_used():
    """`Name`, `Name.member` and, for objects, `Class.member`, as the TensorRT backend uses them."""
    used = set()
    for path in sorted((ROOT / "toolkit" / "backends" / "tensorrt").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value
            if _is_module(owner):
                used.add(node.attr)
            elif isinstance(owner, ast.Attribute) and _is_module(owner.value):
                used.add(f"{owner.attr}.{node.attr}")
            elif isinstance(owner, ast.Name) and owner.id in OBJECTS and path.name != "tensorrt_child.py":
                used.add(f"{OBJECTS[owner.id]}.{node.attr}")
    python = {"what", "remedy", "name"}  # of Python's and our own errors, which bear the name `error` too
    return {name for name in used if "__" not in name and name.rpartition(".")[2] not in python}


def _is_module(node):
    return (isinstance(node, ast.Name) and node.id == "trt") or (isinstance(node, ast.Attribute) and node.attr == "trt")


def has(recorded, name):
    first, _, member = name.partition(".")
    if first not in recorded:
        return False
    return not member or member in (recorded[first].get("cls") or recorded[first].get("enum") or ())


@pytest.mark.parametrize("version", ["10.16", "11.4", "rtx-1.7"])
def test_every_name_is_in_the_recorded_library(version):
    recorded = json.loads((ROOT / "toolkit" / "testing" / "recordings" / f"tensorrt-{version}.json").read_text())["api"]
    used = names_used()
    assert len(used) > 30  # the walk does see the code
    allowed = set() if version.startswith("rtx") else RTX_ALONE
    assert {name for name in used if not has(recorded, name)} == {name for name in used if name in allowed}


def test_flags_and_levels_named_by_text_are_real():
    from toolkit.backends.tensorrt.options import FLAGS, LEVELS

    recorded = json.loads((ROOT / "toolkit" / "testing" / "recordings" / "tensorrt-11.4.json").read_text())["api"]
    assert set(FLAGS.values()) <= set(recorded["BuilderFlag"]["enum"])
    assert set(LEVELS.values()) == set(recorded["HardwareCompatibilityLevel"]["enum"])


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(libraries.MODULES, "rtx", ("no_such_library", "no_such_bindings"))
    with pytest.raises(MissingExtra, match=r"resnet-deploy\[rtx\]"):
        libraries.load("rtx")


def test_a_library_that_does_not_load_says_why(monkeypatch, tmp_path):
    (tmp_path / "broken_library.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(libraries.MODULES, "tensorrt", ("broken_library", "no_such_bindings"))
    with pytest.raises(BackendError, match=r"cannot be loaded.*libnvinfer"):
        libraries.load("tensorrt")


def test_the_bindings_serve_where_the_meta_package_is_missing(monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
    monkeypatch.setitem(libraries.MODULES, "rtx", ("no_such_library", "tensorrt_rtx_bindings"))
    assert libraries.load("rtx").trt.__name__ == "tensorrt_rtx_bindings"


def test_a_library_that_is_too_old_is_refused(monkeypatch, tmp_path):
    (tmp_path / "old_library.py").write_text("__version__ = '10.12.0.36'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(libraries.MODULES, "tensorrt", ("old_library", "no_such_bindings"))
    with pytest.raises(BackendError, match=r"10\.12\.0\.36 is older than 10\.13"):
        libraries.load("tensorrt")


def told(kind, *texts):
    library = Library(kind, ModuleType("nothing"), "11.4.0.106")
    return libraries.explain(library, "the engine", [Message(1, text) for text in texts])


def test_what_a_failed_call_said_becomes_one_error():
    assert isinstance(told("tensorrt", "CUDA initialization failure with error: 35 (cudaError 35: driver)"), DeviceError)
    assert "driver" in str(told("tensorrt", "no CUDA-capable device is detected"))
    full = told("tensorrt", "Error Code 2: OutOfMemory (Requested size was 103064224 bytes.)")
    assert isinstance(full, DeviceError)
    assert "out of memory" in str(full) and "build.batch" in str(full)
    other = told("tensorrt", "[checkMacros.cpp::catchCudaError::250] noise", "Could not find any implementation for node conv1")
    assert isinstance(other, BackendError) and "any implementation for node conv1" in str(other)


def test_warnings_are_kept_once_and_in_order():
    heard = [Message(2, " b "), Message(3, "info"), Message(2, "a"), Message(2, "b"), Message(1, "error")]
    assert libraries.warnings_of(heard) == ("b", "a")


@pytest.fixture
def real():
    """The real builder's configuration, to be set as TensorRT's would be: the two have the same flags."""
    trt = pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
    builder = trt.Builder(libraries.log_of(trt).handle)
    return SimpleNamespace(trt=trt, builder=builder, config=builder.create_builder_config())


def test_options_reach_the_configuration(real):
    library = Library("tensorrt", real.trt, "11.4.0.106")
    build = Build(workspace_mib=64, optimization_level=4, refit=True, strip_weights=True, version_compatible=True)
    refuse_options(library, build)
    configure(library, real.config, build, Target("tensorrt"))
    flags = real.trt.BuilderFlag
    assert all(real.config.get_flag(flag) for flag in (flags.REFIT, flags.STRIP_PLAN, flags.VERSION_COMPATIBLE))
    assert real.config.get_memory_pool_limit(real.trt.MemoryPoolType.WORKSPACE) == 64 << 20
    assert real.config.builder_optimization_level == 4
    assert real.config.profiling_verbosity == real.trt.ProfilingVerbosity.DETAILED
    plain = real.builder.create_builder_config()
    configure(library, plain, Build(), Target("tensorrt"))
    assert not any(plain.get_flag(flag) for flag in (flags.REFIT, flags.STRIP_PLAN, flags.VERSION_COMPATIBLE))


def test_the_target_reaches_the_configuration(real):
    configure(Library("rtx", real.trt, "1.7"), real.config, Build(), Target("rtx", 120))
    assert real.config.num_compute_capabilities == 1
    assert real.config.get_compute_capability(0) == real.trt.ComputeCapability.SM120


def test_settings_keep_the_sm_and_what_is_not_default():
    assert settings_of(Build(), [89]) == {"sm": 89}
    found = settings_of(Build(refit=True, hardware_compatibility="ampere_plus"), [90])
    assert found == {"sm": 90, "refit": True, "hardware_compatibility": "ampere_plus"}


def test_a_portable_target_is_every_sm_that_the_library_builds_for():
    sms = SimpleNamespace(__members__=dict.fromkeys(("NONE", "CURRENT", "SM75", "SM80", "SM89", "SM120")))
    library = Library("rtx", SimpleNamespace(ComputeCapability=sms), "1.7.1")
    for text, wanted in (("rtx", [80, 89, 120]), ("rtx:sm89+", [89, 120]), ("rtx:sm120+sm75", [75, 120]), ("rtx:sm80", [80])):
        assert list(libraries.require_architectures(library, Target.parse(text))) == wanted
    for text, words in (("rtx:sm89+sm90", "cannot build for sm90"), ("rtx:sm121+", r"cannot build for rtx:sm121\+")):
        with pytest.raises(BackendError, match=words):
            libraries.require_architectures(library, Target.parse(text))
    assert settings_of(Build(), [80, 89]) == {"sms": [80, 89]}


def test_a_flag_that_the_library_lacks_is_refused():
    nothing = SimpleNamespace(__members__={})
    library = Library("tensorrt", SimpleNamespace(BuilderFlag=nothing, HardwareCompatibilityLevel=nothing), "10.13.0.35")
    asked = [{"refit": True}, {"strip_weights": True}, {"version_compatible": True}, {"hardware_compatibility": "ampere_plus"}]
    for build in (Build(**options) for options in asked):
        with pytest.raises(BackendError, match=r"TensorRT 10\.13\.0\.35 has no"):
            refuse_options(library, build)
