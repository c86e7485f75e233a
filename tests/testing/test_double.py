"""The double must be as strict as the library that it stands for: the same names, the same arguments, the same order."""

import inspect
import re

import numpy as np
import pytest

from tests.runtime.playing import recording
from toolkit.testing.builder import BUILDING
from toolkit.testing.double import PLAYED
from toolkit.testing.host import HazardError
from toolkit.testing.refitter import REFITTING


def public(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [*PLAYED, *BUILDING, *REFITTING])
def test_every_played_name_is_in_a_recording(kind):
    recorded = set()
    for package, major in (("tensorrt", 11), ("tensorrt", 10), ("tensorrt_rtx", 1)):
        recorded |= set(recording(package, major)["api"].get(kind.__name__, {"cls": []})["cls"])
    assert public(kind) <= recorded


@pytest.mark.parametrize("kind", [kind for kind in (*PLAYED, *BUILDING, *REFITTING) if kind.__name__ != "ILogger"])
def test_every_method_takes_the_arguments_of_the_real_library(kind):
    real = pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
    for name in public(kind):
        doc = getattr(getattr(real, kind.__name__), name).__doc__
        signatures = re.findall(rf"{name}\(self: [\w.]+,? ?([^)]*)\)", re.sub(r"<[^>]*>", "", doc))
        if name == "create_execution_context":  # two overloads of one argument each, told apart by its type
            assert [re.findall(r"(\w+): ", s)[0] for s in signatures] == ["strategy", "runtime_config"]
            continue
        names = [re.findall(r"(\w+): ", signature) for signature in signatures]
        ours = [p for p in inspect.signature(getattr(kind, name)).parameters if p != "self"]
        assert ours in names, name


def test_the_real_library_agrees_with_its_recording():
    real = pytest.importorskip("tensorrt_rtx", reason="the rtx extra is not installed")
    recorded = recording("tensorrt_rtx", 1)
    if real.__version__ != recorded["v"]:
        pytest.skip(f"tensorrt-rtx {real.__version__} is installed, {recorded['v']} is recorded")
    for kind in PLAYED:
        if kind.__name__ in recorded["api"]:
            assert all(hasattr(getattr(real, kind.__name__), name) for name in recorded["api"][kind.__name__]["cls"])


def context_of(stage, managed=False):
    class Logger(stage.library.ILogger):
        def log(self, severity, msg):
            stage.heard.append(msg)

    engine = stage.library.Runtime(Logger()).deserialize_cuda_engine(b"engine")
    kinds = stage.library.ExecutionContextAllocationStrategy
    return engine.create_execution_context(kinds.USER_MANAGED if managed else kinds.STATIC)


@pytest.fixture
def bound(play):
    """A stage with a context that is ready to run a batch of 2, and its stream."""
    stage = play(leaks=True)
    stage.device.enter()
    context, stream = context_of(stage), stage.device.stream()
    assert context.set_input_shape("x", (2, 3, 2, 2))
    assert context.set_tensor_address("x", stage.device.allocate(96))
    assert context.set_tensor_address("y", stage.device.allocate(40))
    return stage, context, stream


def test_names_of_other_versions_are_refused(play):
    for package, major, name, there in (
        ("tensorrt", 11, "is_stream_capturable", False),
        ("tensorrt", 10, "all_shape_inputs_specified", True),
        ("tensorrt", 11, "all_shape_inputs_specified", False),
    ):
        context = context_of(play(package, major, leaks=True))
        with pytest.raises(NotImplementedError if there else AttributeError):
            getattr(context, name)
    with pytest.raises(AttributeError, match="has no 'precision'"):
        context.precision = 1
    assert not hasattr(play(leaks=True).library, "IInt8EntropyCalibrator2")
    assert hasattr(play("tensorrt", 10, leaks=True).library, "IInt8EntropyCalibrator2")


def test_a_bound_context_runs_at_the_synchronize(bound):
    stage, context, stream = bound
    stage.device.memory(context._addresses["x"], 96).view(np.float32)[:] = 1
    assert context.execute_async_v3(stream)
    logits = stage.device.memory(context._addresses["y"], 40).view(np.float32)
    assert np.isnan(logits).all()
    stage.device.synchronize(stream)
    assert np.isfinite(logits).all()


def test_what_is_missing_is_named(play):
    stage = play(leaks=True)
    context = context_of(stage)
    assert context.infer_shapes() == ["x"]
    assert not context.execute_async_v3(5)
    assert "no shape was set for ['x']" in stage.heard[-1]
    assert context.set_input_shape("x", (2, 3, 2, 2))
    assert not context.execute_async_v3(5)
    assert "no address was set for ['x', 'y']" in stage.heard[-1]
    assert not context.set_tensor_address("z", 1)
    assert not context.set_optimization_profile_async(7, 5)


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (0, 3, 2, 2), (2, 3, 2, 3), (2, 12)])
def test_shapes_outside_the_profile_are_refused(bound, shape):
    stage, context, _ = bound
    assert not context.set_input_shape("x", shape)
    assert "outside profile 0" in stage.heard[-1]


def test_another_profile_forgets_the_shapes(bound):
    _, context, stream = bound
    assert context.set_optimization_profile_async(1, stream)
    assert context.infer_shapes() == ["x"]


@pytest.mark.parametrize("which", ["x", "y"])
def test_memory_that_is_freed_or_too_small_or_on_the_host(bound, which):
    stage, context, stream = bound
    for address in (stage.device.pin(96), stage.device.allocate(8)):
        context.set_tensor_address(which, address)
        context.execute_async_v3(stream)
        with pytest.raises(HazardError):
            stage.device.synchronize(stream)


def test_capture_before_a_first_run(bound):
    stage, context, stream = bound
    with pytest.raises(HazardError, match="must not be inside a graph"):
        stage.device.capture(stream, lambda: context.execute_async_v3(stream))


def test_launch_after_the_context_changed(bound):
    stage, context, stream = bound
    context.execute_async_v3(stream)
    graph = stage.device.capture(stream, lambda: context.execute_async_v3(stream))
    stage.device.launch(graph, stream)
    stage.device.synchronize(stream)
    context.set_input_shape("x", (3, 3, 2, 2))
    with pytest.raises(HazardError, match="had changed"):
        stage.device.launch(graph, stream)


def test_one_context_on_two_streams(bound):
    stage, context, stream = bound
    other = stage.device.stream()
    context.execute_async_v3(stream)
    with pytest.raises(HazardError, match="two streams"):
        context.execute_async_v3(other)


def test_a_context_without_memory(play):
    stage = play(leaks=True)
    stage.device.enter()
    context = context_of(stage, managed=True)
    context.set_input_shape("x", (1, 3, 2, 2))
    context.set_tensor_address("x", stage.device.allocate(96))
    context.set_tensor_address("y", stage.device.allocate(40))
    with pytest.raises(HazardError, match="before it was given any"):
        context.execute_async_v3(stage.device.stream())
    with pytest.raises(HazardError, match="as large as the engine asks"):
        context.set_device_memory(stage.device.allocate(8), 8)
