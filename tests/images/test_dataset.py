"""Where images come from: packaged data, folders and .npy files; and what is wrong with those that cannot be used."""

from __future__ import annotations

import gzip
import os
import struct
import threading
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.fuzz.bounds import bounds
from toolkit.errors import DataError, InputError, ToolkitError
from toolkit.images.dataset import open_data, preprocess, read_classes, read_idx
from toolkit.recipe import Preprocess

FASHION = Preprocess(size=(28, 28), color="L", mean=(0.286,), std=(0.353,))
SMALL = Preprocess(size=(8, 8), resize=10)


def write(path: Path, seed: int = 0, size: tuple[int, int] = (12, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Three classes of 3, 2 and 1 images, one of them deeper, with what lies about in real folders."""
    root = tmp_path / "val"
    for name, count in (("cat", 3), ("ant", 2), ("bee", 1)):
        for index in range(count):
            write(root / name / ("deep" if name == "bee" else "") / f"{index}.PNG", seed=len(name) * 10 + index)
    (root / ".cache").mkdir()
    (root / "cat" / ".hidden.png").write_text("no image")
    (root / "cat" / "notes.txt").write_text("no image")
    return root


def test_the_packaged_sets() -> None:
    test, train = (open_data(f"packaged:fashion-{name}", FASHION) for name in ("test", "train"))
    assert (test.count, train.count) == (10_000, 2_048)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert len(test.classes) == 10
    assert np.all(np.bincount(train.labels) > 150), "calibration sees every class"
    batch = next(test.batches(64))
    assert batch.dtype == np.float32
    assert batch.shape == (64, 1, 28, 28)
    assert abs(batch.mean()) < 0.1
    assert abs(batch.std() - 1) < 0.1, "the recipe's mean and std are the data's"


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_batches_hold_the_same_images_in_the_same_order_whatever_their_size(size: int) -> None:
    data = open_data("packaged:fashion-test", FASHION, 130)
    batches = list(data.batches(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert np.array_equal(np.concatenate(batches), np.stack([preprocess(data.picture(i), FASHION) for i in range(130)]))
    assert data.count == len(data) == len(data.labels) == 130


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(InputError, match="a batch of 0"):
        next(open_data("packaged:fashion-test", FASHION).batches(0))


def test_a_class_folder(classes: Path) -> None:
    data = open_data(str(classes), SMALL)
    assert data.classes == ("ant", "bee", "cat")
    assert data.labels.tolist() == [0, 1, 2, 0, 2, 2], "interleaved: each class's first, then each one's second, ..."
    assert data.labels.dtype == np.int64
    files = ["ant/0", "bee/deep/0", "cat/0", "ant/1", "cat/1", "cat/2"]
    want = np.stack([preprocess(classes / f"{name}.PNG", SMALL) for name in files])
    assert np.array_equal(np.concatenate(list(data.batches(4))), want)
    assert np.array_equal(np.asarray(data.picture(1)), np.asarray(Image.open(classes / "bee/deep/0.PNG")))


def test_a_limit_keeps_every_class(classes: Path) -> None:
    data = open_data(str(classes), SMALL, 3)
    assert data.labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="0 images"):
        open_data(str(classes), SMALL, 0)


def test_folders_are_matched_by_name_to_the_models_classes(classes: Path) -> None:
    """A part of the classes is enough, and a class may be called by the first word of its name."""
    model = ("dog", "cat", "n01 bird", "ant (black)", "bee")
    data = open_data(str(classes), SMALL, classes=model)
    assert data.classes == model
    assert data.labels.tolist() == [3, 4, 1, 3, 1, 1]


def test_folders_are_matched_by_order_where_names_differ_and_their_number_agrees(classes: Path) -> None:
    assert open_data(str(classes), SMALL, classes=("x", "y", "z")).labels.tolist() == [0, 1, 2, 0, 2, 2]
    with pytest.raises(DataError, match="3 class folders, the model 4, and 'ant'"):
        open_data(str(classes), SMALL, classes=("x", "y", "z", "cat"))


def test_imagenets_classes_are_in_the_order_of_its_folders() -> None:
    names = read_classes("packaged:imagenet")
    folders = [name.split()[0] for name in names]
    assert len(set(folders)) == 1000
    assert folders == sorted(folders)
    assert names[0] == "n01440764 tench, Tinca tinca"


def test_a_flat_folder_calibrates_and_has_no_labels(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.jpg", index)
    data = open_data(str(tmp_path), SMALL, 2)
    assert data.labels is None
    assert data.count == 2


def test_pictures_of_any_size_make_one_batch(tmp_path: Path) -> None:
    for index, size in enumerate([(9, 30), (30, 9), (10, 10), (300, 200)]):
        write(tmp_path / f"{index}.png", index, size)
    assert next(open_data(str(tmp_path), SMALL).batches(4)).shape == (4, 3, 8, 8)


@pytest.mark.parametrize("how", [Preprocess(size=(8, 8)), Preprocess(size=(8, 9), layout="NHWC", color="BGR"), FASHION])
def test_a_npy_of_preprocessed_images(tmp_path: Path, how: Preprocess) -> None:
    images = [Image.fromarray(pixels).crop((0, 0, 300, 300)) for pixels in load_sample_images().images]
    batch = np.stack([preprocess(image, how) for image in images])
    np.save(tmp_path / "x.npy", batch)
    data = open_data(str(tmp_path / "x.npy"), how)
    assert np.array_equal(next(data.batches(9)), batch)
    assert np.abs(preprocess(data.picture(0), how) - batch[0]).max() < 1e-5, "the picture is the preprocessed one"
    assert data.labels is None
    assert data.sha256 != open_data(str(tmp_path / "x.npy"), how, 1).sha256


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3, 8, 9), np.float32), np.zeros((2, 3, 8, 8)), np.zeros((0, 3, 8, 8), np.float32), np.array([None, "x"])],
    ids=["another shape", "float64", "no image", "objects"],
)
def test_a_npy_of_something_else(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy"):
        open_data(str(tmp_path / "x.npy"), SMALL)


def test_a_cut_npy_and_one_with_nan(tmp_path: Path) -> None:
    images = np.zeros((5, 3, 8, 8), np.float32)
    images[3, 0, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", images)
    with pytest.raises(DataError, match=r"image 3 of .*x\.npy holds NaN"):
        list(open_data(str(tmp_path / "x.npy"), SMALL).batches(2))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"x\.npy cannot be read"):
        open_data(str(tmp_path / "x.npy"), SMALL)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_data(str(tmp_path / "none"), SMALL)
    with pytest.raises(DataError, match="holds no image"):
        open_data(str(tmp_path), SMALL)
    write(tmp_path / "a" / "0.png")
    assert open_data(str(tmp_path), SMALL).count == 1, "one class is enough to calibrate with"
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"class folder .*b holds no image"):
        open_data(str(tmp_path), SMALL)
    write(tmp_path / "0.png")
    with pytest.raises(DataError, match="both images"):
        open_data(str(tmp_path), SMALL)
    with pytest.raises(DataError, match=r"neither a folder nor a \.npy"):
        open_data(str(tmp_path / "0.png"), SMALL)
    with pytest.raises(DataError, match="Packaged are: fashion-test, fashion-train"):
        open_data("packaged:fashion", SMALL)


def test_a_bad_image_in_the_midst_is_named(classes: Path) -> None:
    (classes / "cat" / "1.PNG").write_text("no image")
    data = open_data(str(classes), SMALL)
    with pytest.raises(DataError, match=r"cat.1\.PNG"):
        list(data.batches(2))


def test_the_hash_follows_images_order_and_preprocessing_and_nothing_else(classes: Path, tmp_path: Path) -> None:
    first = open_data(str(classes), SMALL).sha256
    folder = str(classes.rename(tmp_path / "elsewhere"))
    assert open_data(folder, SMALL, classes=("cat", "bee", "ant")).sha256 == first
    others = {
        "fewer": open_data(folder, SMALL, 5).sha256,
        "preprocessing": open_data(folder, msgspec.structs.replace(SMALL, resize=9)).sha256,
    }
    write(tmp_path / "elsewhere" / "cat" / "1.PNG", seed=99)
    others["another image"] = open_data(folder, SMALL).sha256
    assert len({first, *others.values()}) == 4


def test_many_images_do_not_fill_the_memory(tmp_path: Path) -> None:
    """300 photographs of 0.8 MB of pixels each: what is held at once is a batch, not the folder."""
    photograph = tmp_path / "0000.png"
    Image.fromarray(load_sample_images().images[0]).save(photograph)
    for index in range(1, 300):
        (tmp_path / f"{index:04}.png").hardlink_to(photograph)
    data = open_data(str(tmp_path), SMALL, 40)
    tracemalloc.start()
    for batch in data.batches(4):
        assert batch.nbytes == 4 * 3 * 8 * 8 * 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def test_class_names_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\n  dog \nbird")
    assert read_classes(str(path)) == ("cat", "dog", "bird")
    for text, words in (("", "line 1 names no class"), ("cat\n\ndog\n", "line 2 names no class")):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            read_classes(str(path))
    path.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_classes(str(path)) == ("cat", "dog"), "as an editor on Windows saves it"
    path.write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe.txt")
    for missing in (str(path), str(tmp_path / "none.txt"), str(tmp_path / "pipe.txt"), str(tmp_path), "packaged:none"):
        with pytest.raises(DataError, match="cannot be read"):
            read_classes(missing)


def test_idx_files_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.idx.gz"
    header = struct.pack(">BBBBII", 0, 0, 8, 2, 3, 4)
    path.write_bytes(gzip.compress(header + bytes(range(12))))
    assert read_idx(path).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    good = path.read_bytes()
    insides = [b"", b"no idx", header, header[:-1], header + bytes(11), header + bytes(13)]
    for content in (good[:-9], b"text", *map(gzip.compress, insides)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.idx\.gz"):
            read_idx(path)
    with pytest.raises(ToolkitError, match="does not exist"):
        read_idx(tmp_path / "none.gz")


def test_a_reader_that_stops_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    for index in range(40):
        write(tmp_path / f"{index:02}.png", index)
    before = threading.active_count()
    batches = open_data(str(tmp_path), SMALL).batches(3)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_the_hash_of_a_set_is_what_it_was_before_preprocessing_could_be_inside(classes: Path) -> None:
    """Engines keep it, and ranges are of it: a new key that changes no image must not change it."""
    import hashlib

    values = {key: value for key, value in msgspec.to_builtins(SMALL).items() if key not in ("inside", "draft")}
    digest = hashlib.sha256(msgspec.json.encode(values))
    data = open_data(str(classes), SMALL)
    for index in range(data.count):
        content = Path(data.name(index)).read_bytes()
        digest.update(struct.pack("<Q", len(content)) + content)
    assert data.sha256 == digest.hexdigest() == data.having(True).sha256
    assert open_data(str(classes), msgspec.structs.replace(SMALL, draft=True)).sha256 != data.sha256


def test_the_same_images_as_pixels(classes: Path, tmp_path: Path) -> None:
    data = open_data(str(classes), SMALL)
    floats, pixels = next(data.batches(9)), next(data.having(True).batches(9))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (6, 8, 8, 3))
    assert data.having(False) is data
    np.testing.assert_array_equal(data.having(True).labels, data.labels)
    np.save(tmp_path / "ready.npy", floats)
    ready = open_data(str(tmp_path / "ready.npy"), SMALL)
    np.testing.assert_array_equal(next(ready.having(True).batches(9)), pixels)  # undone, as they came from pixels
    np.save(tmp_path / "other.npy", floats + np.float32(0.006))  # a third of a level off
    with pytest.raises(DataError, match=r"image 0 of .* is not a preprocessed 8-bit picture"):
        next(open_data(str(tmp_path / "other.npy"), SMALL).having(True).batches(9))


@pytest.mark.parametrize(
    "text",
    [
        '["cat", "dog", "bird"]',
        '{"1": "dog", "0": "cat", "2": "bird"}',
        '{"bird": 2, "cat": 0, "dog": 1}',
        "0 cat\n1, dog\n2: bird\n",
        "1 cat\n2 dog\n3 bird\n",
        "2,bird\n0,cat\n1,dog\n",
        "index,name\n0,cat\n1,dog\n2,bird\n",
        ",class_name\n0,cat\n1,dog\n2,bird\n",
        "Class ID;Label\n2;bird\n1;dog\n0;cat\n",
        "label\tid\nbird\t2\ncat\t0\ndog\t1\n",
        'name, index\n"cat", 0\n"dog", 1\n"bird", 2\n',
    ],
)
def test_class_names_with_their_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text)
    assert read_classes(str(tmp_path / "names")) == ("cat", "dog", "bird")


def test_class_names_that_only_look_like_it(tmp_path: Path) -> None:
    path = tmp_path / "names"
    tables = ("label\ncat", "cat, 7\ndog, 8", "tench, Tinca\ncrane, bird", "id, no")
    for text in ("[cat]\n[dog]", "0 cats\n2 dogs", "7 up\n8 ball", *tables):
        path.write_text(text)
        assert read_classes(str(path)) == tuple(text.splitlines())
    for text in ('{"0": ["n01440764", "tench"]}', '{"1": "cat", "2": "dog"}', '{"cat": "dog"}'):
        path.write_text(text)
        with pytest.raises(DataError, match="are JSON, but no list of names"):
            read_classes(str(path))


@pytest.mark.parametrize("name", ["../packaged/fashion", "/etc/x", "a\0b"])
def test_packaged_class_names_lie_with_the_package(name: str) -> None:
    """The word may be a stranger's: it stands in the recipe of an engine."""
    with pytest.raises(DataError, match=r"are packaged|cannot be read"):
        read_classes(f"packaged:{name}")


def test_a_picture_of_holes_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    os.truncate(tmp_path / "a.png", 1 << 40)
    with bounds(), pytest.raises(DataError, match="larger than"):
        _ = open_data(str(tmp_path), Preprocess(size=(8, 8))).digests


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_names_that_are_no_text_can_be_told(tmp_path: Path) -> None:
    """A manifest keeps what was left out and the names of the classes; a report, those of images."""
    for name in (b"a\xff/x\xfe.png", b"b/x.png", b"b/y.pn\xe7"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path, format="PNG")
    images = open_data(str(tmp_path), Preprocess(size=(8, 8)))
    told = msgspec.json.encode((images.remarks, images.classes, images.name(0))).decode()
    assert images.count == 2 and images.classes == ("a\ufffd", "b")
    assert ".pn\ufffd" in told and "x\ufffd.png" in told
