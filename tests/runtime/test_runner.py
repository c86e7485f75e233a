import threading

import msgspec
import numpy as np
import pytest
from PIL import Image

from toolkit.errors import ClosedError, DataError, InputError
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.runtime import Prediction, Runner
from toolkit.runtime.arrays import DeviceArray
from toolkit.types import TensorSpec

MANIFEST = Manifest(
    name="means",
    target="cpu",
    file="-",
    precision="fp32",
    inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 3, 4, 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 3)),),
    profiles=(Profile(min=1, opt=1, max=4),),
    preprocess=Preprocess(size=(4, 4)),
    classes=("red", "green", "blue"),
)
IMAGES = np.random.default_rng(0).normal(size=(11, 3, 4, 4)).astype(np.float32)


class Means:
    """The mean of each channel; notes the batches that it was given."""

    def __init__(self, max_batch=None):
        self.max_batch, self.sizes, self.closes = max_batch, [], 0

    def run(self, batch):
        self.sizes.append(len(batch))
        return np.asarray(batch).mean(axis=(2, 3))

    def close(self):
        self.closes += 1


@pytest.mark.parametrize(("max_batch", "sizes"), [(None, [11]), (11, [11]), (4, [4, 4, 3]), (1, [1] * 11)])
def test_a_batch_is_split_where_the_engine_takes_no_more(max_batch, sizes):
    executor = Means(max_batch)
    np.testing.assert_allclose(Runner(MANIFEST, executor)(IMAGES), IMAGES.mean(axis=(2, 3)), rtol=1e-6)
    assert executor.sizes == sizes


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (IMAGES[0], r"takes \[N, 3, 4, 4\], not an array of shape \[3, 4, 4\]"),
        (IMAGES[:, :, :3], r"not an array of shape \[11, 3, 3, 4\]"),
        (np.float32(1), "not float32"),
        (np.array(1, np.float32), r"not an array of shape \[\]"),
        (IMAGES.astype(np.float64), r"takes float32, not float64\. Use batch\.astype\('float32'\)"),
        (IMAGES[:0], "a batch of 0 images"),
        ([[1.0]], "takes arrays, not list"),
        (None, "takes arrays, not NoneType"),
    ],
)
def test_bad_inputs_are_named_and_never_run(batch, words):
    executor = Means()
    with pytest.raises(InputError, match=words):
        Runner(MANIFEST, executor)(batch)
    assert executor.sizes == []


def test_a_torch_tensor_is_read_where_it_is():
    torch = pytest.importorskip("torch")
    seen = []
    executor = Means()
    executor.run = lambda batch: seen.append(batch) or batch.mean(axis=(2, 3))
    tensor = torch.from_numpy(IMAGES.copy())
    Runner(MANIFEST, executor)(tensor)
    assert isinstance(seen[0], np.ndarray)
    assert seen[0].ctypes.data == tensor.data_ptr()
    with pytest.raises(InputError, match="takes float32, not float64"):
        Runner(MANIFEST, executor)(tensor.double())


class OnGpu:
    def __init__(self):
        self.__cuda_array_interface__ = {"shape": (2, 3, 4, 4), "typestr": "<f4", "data": (4096, False), "version": 3}


def test_a_gpu_array_goes_only_to_an_engine_that_can_read_it():
    with pytest.raises(InputError, match=r"the input is on a GPU, means runs on the CPU\. Copy it to the host first"):
        Runner(MANIFEST, Means())(OnGpu())
    executor = Means()
    executor.zero_copy = True
    executor.run = lambda batch: executor.sizes.append((type(batch), len(batch)))
    Runner(MANIFEST, executor)(OnGpu())
    assert executor.sizes == [(DeviceArray, 2)]


def test_classify_names_the_best_classes(tmp_path):
    Image.new("RGB", (9, 7), "blue").save(tmp_path / "blue.png")
    green = np.zeros((5, 5, 3), np.uint8)
    green[..., 1] = 255
    runner = Runner(MANIFEST, Means())
    (first, *_), (second, *_) = runner.classify([tmp_path / "blue.png", green])
    assert (first.label, second.label) == ("blue", "green")
    assert isinstance(first, Prediction)
    one = runner.classify(green, top=3)
    assert len(one) == 1
    assert sum(p.probability for p in one[0]) == pytest.approx(1)
    assert len(runner.classify(green, top=2)[0]) == 2
    for none in (0, -1):  # of a slice the latter would be all but the last
        with pytest.raises(InputError, match=f"the first {none} classes are none"):
            runner.classify(green, top=none)
    unnamed = Runner(msgspec.structs.replace(MANIFEST, classes=None), Means())
    assert unnamed.classify(green)[0][0][:2] == ("1", 1)


def test_close_is_for_once():
    executor = Means()
    with Runner(MANIFEST, executor) as runner:
        runner(IMAGES)
    runner.close()
    threads = [threading.Thread(target=runner.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert executor.closes == 1
    for call in (lambda: runner(IMAGES), lambda: runner.classify(np.zeros((4, 4, 3), np.uint8))):
        with pytest.raises(ClosedError, match="the runner of means is closed"):
            call()


def test_a_huge_batch_is_worked_off_in_slices(monkeypatch):
    """An engine keeps the memory of the largest batch that it was given."""
    monkeypatch.setattr("toolkit.runtime.runner.SLICE_IMAGES", 2)
    monkeypatch.setattr("toolkit.runtime.runner.SLICE_BYTES", 5 * IMAGES[0].nbytes)
    executor = Means()
    np.testing.assert_allclose(Runner(MANIFEST, executor)(IMAGES), IMAGES.mean(axis=(2, 3)), rtol=1e-6)
    assert executor.sizes == [5, 5, 1]
    large = msgspec.structs.replace(MANIFEST, profiles=(Profile(min=1, opt=1, max=8),))
    executor = Means()
    Runner(large, executor)(IMAGES)
    assert executor.sizes == [8, 3], "what the recipe is built for is never split"


def test_one_bad_file_does_not_lose_the_other_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.runtime.runner.SLICE_IMAGES", 2)
    colors = ["red", "green", "blue", "red", "blue"]
    for i, color in enumerate(colors):
        Image.new("RGB", (4, 4), color).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "3.png").unlink()
    executor = Means()
    runner, paths = Runner(MANIFEST, executor), [tmp_path / f"{i}.png" for i in range(5)]
    answers = list(runner.answers(paths, top=1))
    assert [a[0].label if isinstance(a, list) else type(a) for a in answers] == ["red", "green", DataError, DataError, "blue"]
    assert executor.sizes == [2, 1], "no slice is larger, and none is empty"
    with pytest.raises(DataError, match=r"2\.png"):
        runner.classify(paths)


class Overflows(Means):
    """As a network whose FP16 overflows on bright pictures."""

    def run(self, batch):
        means = super().run(batch)
        return np.where(means.max(axis=1, keepdims=True) > 2, np.array([np.nan, 1, 2], np.float32), means)


def test_an_answer_of_nan_is_no_class(tmp_path):
    """NaN sorts behind every number, so that the class which it stands for would leave the first place to another."""
    paths = [tmp_path / f"{name}.png" for name in ("black", "white")]
    for path in paths:
        Image.new("RGB", (4, 4), path.stem).save(path)
    runner = Runner(MANIFEST, Overflows())
    first, second = runner.answers(paths, top=1)
    assert first[0].probability == pytest.approx(1 / 3, abs=0.1)
    assert isinstance(second, DataError) and "means answers this picture with NaN or infinity" in str(second)
    with pytest.raises(DataError, match="keep it in FP32"):
        runner.classify(paths)
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="NaN or infinity"):
            runner.predictions(np.array([[0, bad, 1]], np.float32))
    with np.errstate(all="raise"):
        masked = runner.predictions(np.array([[0, -np.inf, 1]], np.float32))
    assert masked[0][2] == Prediction("green", 1, 0.0), "a class that a network rules out is an answer"


def test_nan_is_refused_where_that_is_asked_for():
    wrong = IMAGES.copy()
    wrong[3, 1, 2, 2] = np.nan
    wrong[7] = np.inf
    executor = Means()
    assert np.isnan(Runner(MANIFEST, executor)(wrong)[3]).any(), "the default answers it"
    with pytest.raises(InputError, match="image 3 of the batch for means holds NaN or infinity"):
        Runner(MANIFEST, executor, check_finite=True)(wrong)
    executor.zero_copy = True
    with pytest.raises(InputError, match="on a GPU"):
        Runner(MANIFEST, executor, check_finite=True)(OnGpu())


def test_a_long_list_is_read_a_batch_ahead_and_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.runtime.runner.SLICE_IMAGES", 4)
    Image.new("RGB", (4, 4), "green").save(tmp_path / "x.png")
    drawn = 0

    def paths():
        nonlocal drawn
        for _ in range(10_000):
            drawn += 1
            yield tmp_path / "x.png"

    answers = Runner(MANIFEST, Means()).answers(paths(), top=1)
    assert [next(answers)[0].label for _ in range(9)] == ["green"] * 9
    assert 9 < drawn <= 3 * 4 + 4 + 2, "three batches are answered, a fourth is being read"
    answers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]


def test_preprocess_gives_what_a_call_takes(tmp_path):
    Image.new("RGB", (8, 6), "red").save(tmp_path / "x.png")
    runner = Runner(MANIFEST, Means())
    batch = runner.preprocess([tmp_path / "x.png", Image.new("RGB", (4, 4), "blue")])
    assert (batch.shape, batch.dtype) == ((2, 3, 4, 4), np.float32)
    assert [best[0].label for best in runner.predictions(runner(batch))] == ["red", "blue"]
    with pytest.raises(DataError, match=r"none\.png"):
        runner.preprocess(tmp_path / "none.png")
