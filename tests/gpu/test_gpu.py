"""What only a GPU can show. `make gpu-test` runs the benchmark; these run with `pytest -m gpu` where there is a GPU."""

import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import toolkit
from toolkit import pipeline
from toolkit.backends.onnxruntime.backend import PROVIDERS
from toolkit.errors import DeviceError, InputError, MissingExtra
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.recipe import Recipe
from toolkit.runtime.device import best
from toolkit.types import Target

ROOT = Path(__file__).parents[2]


def _why_not():
    try:
        device = best()
    except (MissingExtra, DeviceError) as error:
        return None, str(error)
    sm = device.sm
    device.close()
    return sm, ""


SM, WHY_NOT = _why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(SM is None, reason=WHY_NOT)]


def targets():
    for target, there, package in (
        ("tensorrt", find_spec("tensorrt"), "tensorrt"),
        (f"rtx:sm{SM}", find_spec("tensorrt_rtx"), "tensorrt-rtx"),
        ("cuda", _has_cuda_provider(), "onnxruntime-gpu"),
    ):
        yield pytest.param(target, marks=pytest.mark.skipif(not there, reason=f"{package} is not installed"))


def _has_cuda_provider():
    if not find_spec("onnxruntime"):
        return False
    import onnxruntime

    return PROVIDERS["cuda"] in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def trip():
    recipe = Recipe.load(ROOT / "engines" / "fashion-resnet18-int8.toml")
    return recipe, pipeline.prepare(recipe)


@pytest.fixture(scope="module", params=targets())
def engine(request, trip, tmp_path_factory):
    target = Target.parse(request.param)
    folder = tmp_path_factory.mktemp("engines") / target.kind
    pipeline.build(trip[1], target, folder)
    return folder


@pytest.fixture
def runner(engine):
    with toolkit.load(engine) as live:
        yield live


def images(runner, count, seed=0):
    shape = runner.manifest.inputs[0].shape[1:]
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def test_the_device_keeps_the_contract():
    from tests.runtime.contract import check

    check(best())


def test_the_verdict_on_all_test_images(runner, trip):
    recipe, made = trip
    data = pipeline.proof_images(recipe)
    accept, logits = recipe.accept, answers_of(runner, data)
    verdict = compare_accuracy(made.truth, logits, data.labels, accept)
    assert verdict.accepted, verdict.text


def test_batches_split_and_repeat(runner):
    batch = images(runner, 70)
    whole = runner(batch)
    for _ in range(3):
        np.testing.assert_allclose(runner(batch), whole, atol=1e-2)
    np.testing.assert_allclose(np.concatenate([runner(batch[:1]), runner(batch[1:9])]), whole[:9], atol=5e-2)


def test_threads(runner):
    batches = [images(runner, 1 + seed, seed) for seed in range(8)]
    alone = [runner(batch) for batch in batches]
    wrong = []

    def work(at):
        wrong.extend(at for _ in range(20) if not np.allclose(runner(batches[at]), alone[at], atol=1e-2))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_torch_tensors_on_the_gpu_are_read_in_place(runner):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    batch = images(runner, 5)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # still on its way when the runner is called
        tensor = torch.from_numpy(batch).cuda(non_blocking=True) * 2 / 2
    for _ in range(3):
        np.testing.assert_allclose(runner(tensor), runner(batch), atol=1e-2)
    wide = torch.zeros((5, *batch.shape[1:-1], 2 * batch.shape[-1]), device="cuda")
    with pytest.raises(InputError, match="contiguous"):
        runner(wide[..., ::2])


def test_the_contexts_of_the_app_are_left_alone(engine):
    driver = pytest.importorskip("cuda.bindings.driver")
    before = int(driver.cuCtxGetCurrent()[1])
    with toolkit.load(engine) as live:
        live(images(live, 3))
        assert int(driver.cuCtxGetCurrent()[1]) == before
    assert int(driver.cuCtxGetCurrent()[1]) == before


def test_time_on_the_device_is_less_than_the_whole_call(runner):
    import time

    if not hasattr(runner.executor, "time_on_device"):
        pytest.skip("this executor has no clock on the device")
    batch = images(runner, 8)
    device = np.median(runner.executor.time_on_device(8, 50))
    for _ in range(5):
        runner(batch)
    start = time.perf_counter()
    for _ in range(50):
        runner(batch)
    assert 0 < device < (time.perf_counter() - start) / 50
