import threading
import weakref
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.playing import X, Y, answer, linear, stage
from toolkit.disk.files import sha256
from toolkit.errors import ClosedError, DeviceError, EngineError, InputError
from toolkit.manifest import Manifest, Profile
from toolkit.runtime import Runner
from toolkit.runtime.arrays import DeviceArray
from toolkit.runtime.device import LEGACY_STREAM
from toolkit.testing.host import Op
from toolkit.types import TensorSpec

LIBRARIES = [("tensorrt", 11), ("tensorrt", 10), ("tensorrt_rtx", 1)]


def close_to(got, images):
    np.testing.assert_allclose(got, answer(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("package", "major"), LIBRARIES)
def test_any_batch_on_every_library(play, images, package, major):
    executor = play(package, major).load()
    for _ in range(3):  # plain run, run with capture, run from the graph
        for count in (1, 2, 4, 5, 8, 9, 16, 17, 31, 64):
            close_to(executor.run(images[:count]), images[:count])
    executor.close()


def test_the_second_meeting_of_a_shape_makes_a_graph(play, images):
    stage = play()
    executor = stage.load()
    executor.run(images[:1])
    executor.run(images[:1])
    assert stage.device.held()["graphs"] == 1
    assert stage.device.launches == 0
    close_to(executor.run(images[1:2]), images[1:2])
    assert stage.device.launches == 1
    executor.close()


def test_graphs_stay_few(play, images):
    stage = play(profiles=((1, 1, 64),))
    executor = stage.load(contexts=1)
    for count in list(range(1, 41)) * 3:
        close_to(executor.run(images[:count]), images[:count])
    assert stage.device.held()["graphs"] <= 16
    executor.close()


def test_rtx_leaves_graphs_to_the_library_and_keeps_its_kernels(play, images, tmp_path):
    cache = tmp_path / "kernels.bin"
    stage = play("tensorrt_rtx", 1)
    executor = stage.load(jit_cache=cache)
    for _ in range(3):
        close_to(executor.run(images[:3]), images[:3])
    assert "graphs" not in stage.device.held()
    executor.close()
    assert cache.read_bytes()
    play("tensorrt_rtx", 1).load(jit_cache=cache).close()


def test_a_kernel_cache_that_cannot_be_written_is_a_warning(play, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    executor = play("tensorrt_rtx", 1).load(jit_cache=tmp_path / "file" / "kernels.bin")
    with pytest.warns(RuntimeWarning, match="cannot be kept in .* Name a writable file as jit_cache"):
        executor.close()


def test_the_profile_tuned_nearest_to_the_batch_is_taken(play):
    executor = play().load()
    assert [executor.parts(n)[0].profile for n in (1, 2, 4, 5, 8)] == [0, 0, 0, 1, 1]
    executor.close()


def test_a_rest_too_small_for_any_profile_is_shared_out(play, images):
    executor = play(profiles=((4, 8, 8),)).load()
    assert [part.stop - part.start for part in executor.parts(9)] == [5, 4]
    close_to(executor.run(images[:9]), images[:9])
    for count in (1, 3):
        with pytest.raises(InputError, match=f"takes no batch of {count}: its profiles are 4 to 8"):
            executor.run(images[:count])
    executor.close()


@given(
    st.lists(st.tuples(*[st.integers(1, 12)] * 3).map(sorted).map(tuple), min_size=1, max_size=3).map(tuple),
    st.integers(1, 60),
)
def test_parts_cover_the_batch_and_fit_their_profiles(profiles, count):
    executor = stage(profiles=profiles).load()
    try:
        parts = executor.parts(count)
    except InputError:
        assert not any(low <= count <= high for low, _, high in profiles)
        return
    finally:
        executor.close()
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == count
    for part in parts:
        low, _, high = profiles[part.profile]
        assert low <= part.stop - part.start <= high


def test_parts_overlap_on_two_slots(play, images):
    stage = play()
    executor = stage.load(contexts=2)
    close_to(executor.run(images), images)
    assert stage.device.held()["streams"] == 2
    executor.close()


def test_one_context_is_enough_for_a_split_batch(play, images):
    executor = play().load(contexts=1)
    close_to(executor.run(images), images)
    executor.close()


def test_many_threads_get_their_own_answers(play, images):
    executor = play().load(contexts=3)
    wrong = []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(40):
            batch = images[: random.integers(1, 20)] * np.float32(seed)
            if not np.allclose(executor.run(batch), answer(batch), atol=1e-4):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    executor.close()


def test_calls_run_at_the_same_time(play, images):
    meet = threading.Barrier(2, timeout=20)

    def function(arrays):
        meet.wait()  # passes only if two threads are inside at once
        return linear(arrays)

    executor = play(function=function).load(contexts=2)
    threads = [threading.Thread(target=executor.run, args=(images[:1],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not meet.broken
    executor.close()


def on_device(stage, values, stream=None, device=None):
    """The values in device memory, as another library would hold them; with a stream, still on their way there."""
    owed = stage.device.enter()
    address = stage.device.allocate(values.nbytes)

    def write():
        stage.device.memory(address, values.nbytes)[:] = values.reshape(-1).view(np.uint8)

    if stream is None:
        write()
    else:
        stage.device.queue(stream, Op(write))
    if owed:
        stage.device.leave()
    return DeviceArray(address, values.shape, values.dtype, None, stream, device)


@pytest.mark.parametrize("stream", [None, LEGACY_STREAM])
def test_gpu_arrays_are_read_in_place_once_their_producer_is_done(play, images, stream):
    stage = play(leaks=True)
    executor = stage.load()
    blocks = stage.device.held()["device blocks"]
    for count in (3, 3, 3, 30):
        array = on_device(stage, images[:count], stream)
        close_to(executor.run(array), images[:count])
    assert stage.device.held()["device blocks"] <= 2 * blocks + 4  # nothing was copied aside
    executor.close()


def test_one_gpu_array_gets_a_graph_of_its_own(play, images):
    stage = play(leaks=True)
    executor = stage.load(contexts=1)
    array = on_device(stage, images[:3])
    for _ in range(3):
        close_to(executor.run(array), images[:3])
    assert stage.device.launches == 1
    executor.close()


def test_page_locked_arrays_are_read_in_place(play):
    size = (1, 3, 128, 128)  # large enough to be worth asking about
    specs = (TensorSpec(name="x", dtype="float32", shape=("N", *size[1:])), Y)
    stage = play(function=lambda a: {"y": a["x"].reshape(len(a["x"]), -1)[:, :5]}, spec=specs, profiles=((1, 1, 2),))
    executor = stage.load(contexts=1)
    batch = executor.pinned(5)
    for value in range(1, 5):
        batch[:] = value
        assert (executor.run(batch[:1]) == value).all()
    addresses = {key[2] for slot in executor._pool._free for key in slot._graphs}
    assert addresses == {batch.__array_interface__["data"][0]}
    assert (executor.run(batch) == 4).all()  # each part where it is
    executor.close()


def test_arrays_on_another_gpu_are_refused(play, images):
    stage = play(leaks=True)
    executor = stage.load()
    elsewhere = on_device(stage, images[:2], device=1)
    with pytest.raises(InputError, match="runs on GPU 0"):
        executor.run(elsewhere)
    host_memory = DeviceArray(images.ctypes.data, images[:2].shape, images.dtype, images)
    with pytest.raises(InputError, match="on no GPU that this process sees"):
        executor.run(host_memory)
    close_to(executor.run(images[:2]), images[:2])
    executor.close()


def test_half_precision_logits_come_back_as_float32(play, images):
    specs = (X, TensorSpec(name="y", dtype="float16", shape=("N", 5)))
    executor = play(spec=specs).load()
    got = executor.run(images[:3])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, answer(images[:3]), atol=2e-2)
    executor.close()


def test_answers_are_the_callers_own(play, images):
    executor = play().load(contexts=1)
    first = executor.run(images[:2])
    kept = first.copy()
    executor.run(images[2:4])
    np.testing.assert_array_equal(first, kept)
    executor.close()


def test_a_runner_over_it_takes_strided_and_read_only_arrays(play, images):
    stage = play()
    with Runner(stage.manifest, stage.load()) as runner:
        strided = images[::3]
        close_to(runner(strided), strided)
        frozen = images[:5].copy()
        frozen.flags.writeable = False
        close_to(runner(frozen), frozen)
        with pytest.raises(InputError, match="float32, not float64"):
            runner(images.astype(np.float64))
        with pytest.raises(InputError, match="batch of 0"):
            runner(images[:0])


@pytest.mark.parametrize(("package", "major"), LIBRARIES)
def test_time_on_the_device(play, images, package, major):
    calls = []

    def function(arrays):
        calls.append(len(arrays["x"]))
        return linear(arrays)

    executor = play(package, major, function=function).load()
    seconds = executor.time_on_device(4, runs=5)
    assert calls == [4] * 6  # one to settle
    assert len(seconds) == 5
    assert all(0 < second < 1 for second in seconds)
    executor.time_on_device(4, runs=2)
    assert calls == [4] * 8  # settled already
    with pytest.raises(InputError, match="at most 8"):
        executor.time_on_device(9, runs=1)
    close_to(executor.run(images[:4]), images[:4])
    executor.close()


# -- closing


def test_use_after_close(play, images):
    stage = play()
    runner = Runner(stage.manifest, stage.load())
    executor = runner.executor
    runner.close()
    runner.close()
    with pytest.raises(ClosedError):
        runner(images[:1])
    with pytest.raises(ClosedError):
        executor.run(images[:1])
    executor.close()


def test_close_waits_for_the_call_that_runs_and_refuses_the_one_that_waits(play, images):
    inside, go = threading.Event(), threading.Event()

    def function(arrays):
        inside.set()
        assert go.wait(20)
        return linear(arrays)

    executor = play(function=function).load(contexts=1)
    results = {}

    def call(name):
        try:
            results[name] = executor.run(images[:1])
        except ClosedError as error:
            results[name] = error

    running = threading.Thread(target=call, args=("running",))
    running.start()
    assert inside.wait(20)
    waiting = threading.Thread(target=call, args=("waiting",))
    waiting.start()
    closers = [threading.Thread(target=executor.close) for _ in range(2)]
    for thread in closers:
        thread.start()
    waiting.join(20)
    assert isinstance(results["waiting"], ClosedError)
    assert all(thread.is_alive() for thread in closers)
    go.set()
    for thread in (running, *closers):
        thread.join(20)
    close_to(results["running"], images[:1])


@pytest.mark.parametrize(("package", "major"), LIBRARIES)
def test_nothing_of_the_library_outlives_a_close(play, images, package, major):
    executor = play(package, major).load()
    executor.run(images[:2])
    executor.run(images[:2])
    alive = [weakref.ref(thing) for thing in (executor._engine, executor._runtime)]
    executor.close()
    assert [reference() for reference in alive] == [None, None]  # its memory must go before its CUDA context does


def test_without_graphs(play, images):
    stage = play()
    executor = stage.load(graphs=False)
    for _ in range(3):
        close_to(executor.run(images[:2]), images[:2])
    assert "graphs" not in stage.device.held()
    executor.close()


def test_an_engine_that_cannot_be_captured_says_how_to_do_without(play, images):
    stage = play()
    executor = stage.load()
    executor.run(images[:2])

    def capture(stream, work):
        raise DeviceError("cannot end a graph: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")

    stage.device.capture = capture
    with pytest.raises(DeviceError, match=r"CAPTURE_INVALIDATED\. Load the engine with graphs=False"):
        executor.run(images[:2])
    executor.close()


# -- what goes wrong


def test_out_of_memory_at_load_gives_everything_back(play):
    stage = play(memory=4500)
    with pytest.raises(DeviceError, match="out of memory"):
        stage.load()


def test_out_of_memory_for_a_second_slot_is_one_error_and_the_first_goes_on(play, images):
    stage = play(memory=6000)
    executor = stage.load(contexts=2)
    first = executor._pool.acquire()
    with pytest.raises(DeviceError, match="out of memory"):
        executor.run(images[:3])
    executor._pool.release(first)
    close_to(executor.run(images[:3]), images[:3])
    executor.close()


def test_a_failure_on_the_gpu_costs_its_slot_only(play, images):
    fail = []

    def function(arrays):
        if fail:
            raise DeviceError(fail.pop())
        return linear(arrays)

    stage = play(function=function)
    executor = stage.load(contexts=1)
    close_to(executor.run(images[:1]), images[:1])
    fail.append("cannot finish the work on the GPU: CUDA_ERROR_LAUNCH_FAILED")
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        executor.run(images[:1])
    close_to(executor.run(images[:1]), images[:1])
    fail.append("again")
    with pytest.raises(DeviceError, match="again"):
        executor.run(images)  # in the middle of a split batch
    close_to(executor.run(images), images)
    executor.close()


def test_a_refit_sees_the_engine_before_anything_runs(play, images):
    seen = []

    def refit(engine):
        assert engine.num_io_tensors == 2
        seen.append(engine)

    def broken(engine):
        raise EngineError("its weights are not here")

    executor = play().load(refit=refit)
    assert len(seen) == 1
    executor.close()
    with pytest.raises(EngineError, match="its weights are not here"):
        play().load(refit=broken)


def test_bytes_that_the_library_refuses(play):
    stage = play()
    with pytest.raises(EngineError, match="magic tag does not match"):
        stage.load(b"not the engine")


def replace(manifest: Manifest, **changes) -> Manifest:
    return msgspec.structs.replace(manifest, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "cpu"}, "is an engine for cpu; tensorrt cannot run it"),
        ({"target": "rtx:sm89"}, "is an engine for rtx:sm89"),
        ({"versions": {"tensorrt": "10.13.3.9"}}, "was built by tensorrt 10.13.3.9; here is 11.4"),
        ({"versions": {}}, "an unknown version"),
        ({"settings": {"sm": 120}}, "built for sm120; host memory is sm89"),
        ({"settings": {"sms": [80, 120]}}, "built for sm80, sm120; host memory is sm89"),
        ({"settings": {"sm": 80, "hardware_compatibility": "same_compute_capability"}}, "built for sm80"),
    ],
)
def test_foreign_engines_are_refused_before_the_library_sees_them(play, changes, words):
    stage = play()
    stage.manifest = replace(stage.manifest, **changes)
    seen = []
    stage.library.Runtime.deserialize_cuda_engine = lambda self, data: seen.append(data)
    with pytest.raises(EngineError, match=words):
        stage.load()
    assert seen == []


@pytest.mark.parametrize("settings", [{"sm": 80, "hardware_compatibility": "ampere_plus"}, {"sms": [80, 89]}, {}])
def test_compatible_engines_are_taken(play, settings):
    stage = play()
    stage.manifest = replace(stage.manifest, settings=settings)
    stage.load().close()


def test_an_rtx_engine_for_another_sm(play):
    stage = play("tensorrt_rtx", 1, sm=120)
    with pytest.raises(EngineError, match=r"sm89; host memory is sm120\. Build it for this GPU: --target rtx:sm120"):
        stage.load()


def test_an_engine_with_other_tensors_than_its_manifest_says(play):
    stage = play()
    stage.manifest = replace(stage.manifest, inputs=(TensorSpec(name="images", dtype="float32", shape=("N", 3, 2, 2)),))
    with pytest.raises(EngineError, match="its manifest says"):
        stage.load()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: b""])
def test_truncated_and_tampered_files_are_refused_from_the_manifest(tmp_path: Path, play, damage):
    stage = play(leaks=True)
    path = tmp_path / stage.manifest.file
    path.write_bytes(b"a compiled engine")
    manifest = replace(stage.manifest, hashes={"file": sha256(path)}, profiles=(Profile(min=1, opt=1, max=4),))
    assert manifest.compiled(tmp_path) == b"a compiled engine"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EngineError, match="is not the file that its manifest describes"):
        manifest.compiled(tmp_path)
