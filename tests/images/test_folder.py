"""Folders of labels as people have them: numbered, littered, linked in circles, and with things in them that are no files."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.errors import DataError
from toolkit.images.dataset import Images, open_data
from toolkit.images.folder import SUFFIXES, read_folder
from toolkit.recipe import Preprocess

SMALL = Preprocess(size=(8, 8))


def write(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value,) * 3).save(path)
    return path


def read(root: Path, classes: tuple[str, ...] | None = None) -> Images:
    return open_data(str(root), SMALL, classes=classes)


def test_folders_named_by_whole_numbers_are_the_labels(tmp_path: Path) -> None:
    """In the order of their names '10' comes before '2', and every label from there on would be another's."""
    for label in range(12):
        write(tmp_path / str(label) / "a.png", label)
    for classes in (None, tuple(f"class {label}" for label in range(12))):
        data = read(tmp_path, classes)
        assert data.labels is not None
        shown = [int(np.asarray(data.picture(i))[0, 0, 0]) for i in range(data.count)]
        assert data.labels.tolist() == shown
        assert data.classes == (classes or tuple(map(str, range(12))))
        assert any("whole numbers, which are taken as the labels" in remark for remark in data.remarks)


def test_some_of_the_numbers_are_enough(tmp_path: Path) -> None:
    for name in ("007", "002", "0"):
        write(tmp_path / name / "a.png", int(name))
    data = read(tmp_path, tuple("abcdefghij"))
    assert sorted(data.labels.tolist()) == [0, 2, 7]
    assert read(tmp_path).classes == tuple(map(str, range(8)))


def test_numbers_that_no_class_has(tmp_path: Path) -> None:
    for label in (1, 2, 3):
        write(tmp_path / str(label) / "a.png")
    with pytest.raises(
        DataError, match=r"a class folder for number 3, the model's classes are 0 to 2\. Number the folders from 0"
    ):
        read(tmp_path, ("a", "b", "c"))
    for classes in (None, tuple("abcd")):
        assert any("the lowest label is 1" in remark for remark in read(tmp_path, classes).remarks)
    write(tmp_path / "03" / "a.png")
    with pytest.raises(DataError, match="two class folders of the number 3"):
        read(tmp_path)


def test_names_of_the_model_come_before_numbers(tmp_path: Path) -> None:
    for name in ("7", "3"):
        write(tmp_path / name / "a.png", int(name))
    data = read(tmp_path, ("7", "3"))
    assert {int(np.asarray(data.picture(i))[0, 0, 0]): int(label) for i, label in enumerate(data.labels)} == {7: 0, 3: 1}


def test_numbers_too_large_for_labels_are_names(tmp_path: Path) -> None:
    for name in ("20250101", "20240101"):
        write(tmp_path / name / "a.png")
    data = read(tmp_path)
    assert data.classes == ("20240101", "20250101")
    assert data.labels.tolist() == [0, 1]


def test_folders_that_are_none_of_the_models_names_are_said(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / name / "a.png")
    assert any("taken in their order" in remark for remark in read(tmp_path, ("x", "y")).remarks)
    assert read(tmp_path, ("dog", "cat")).remarks == ()


@pytest.mark.parametrize(
    ("folders", "classes", "labels"),
    [
        (("0_ant", "10_dog", "1_bee"), ("ant", "bee", "dog"), [0, 2, 1]),
        (("001.Black_footed_Albatross", "002.Crow"), ("crow", "black-footed albatross"), [1, 0]),
        (("T-shirt-top", "ankle_boot"), ("Ankle boot", "T-shirt/top"), [1, 0]),
        (("2_door", "4_door"), ("4 door", "2 door"), [1, 0]),
        (("ANT",), ("bee", "ant", "cat"), [1]),
    ],
)
def test_names_are_found_however_they_are_written(
    tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...], labels: list[int]
) -> None:
    """By the order of their names, '10_dog' would be labeled a bee."""
    for name in folders:
        write(tmp_path / name / "a.png")
    data = read(tmp_path, classes)
    assert (data.labels.tolist(), data.classes) == (labels, classes)
    assert any("without regard to case" in remark for remark in data.remarks)


@pytest.mark.parametrize(
    ("folders", "classes", "said"),
    [
        (("ant", "bee", "cow"), ("bee", "wasp", "cow"), "'ant' is not one of their names, while 'bee' is the name of class 0"),
        (("bee", "crow"), ("crow", "4 door"), "'bee' is not one of their names, while 'crow' is the name of class 0"),
        (("crane",), ("crane", "boat", "crane"), "'crane' is not one of their names"),
        (("red",), ("red fox", "red panda"), "'red' is not one of their names"),
        (("2_door",), ("4 door", "sedan"), "'2_door' is not one of their names"),
    ],
)
def test_a_name_gets_no_label_but_its_own(tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...], said: str) -> None:
    for name in folders:
        write(tmp_path / name / "a.png")
    with pytest.raises(DataError, match=said):
        read(tmp_path, classes)


def test_accents_of_either_form_are_one_name(tmp_path: Path) -> None:
    """macOS' archives hold an accent as a character of its own; by their order 'écureuil' would have another label there."""
    classes = ("âne", "bœuf", "écureuil", "zèbre")
    for name in classes:
        write(tmp_path / unicodedata.normalize("NFD", name) / "a.png")
    found = read_folder(tmp_path, classes)
    assert found.labels is not None and found.classes == classes
    assert [unicodedata.normalize("NFC", path.parent.name) for path in found.paths] == [classes[i] for i in found.labels]


def test_the_parts_of_a_data_set_are_no_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / part / "ant" / "a.png")
    with pytest.raises(DataError, match=r"holds the parts of a data set \(train, val\).*Give one of them, such as .*val"):
        read(tmp_path)
    write(tmp_path / "railway" / "train" / "a.png")
    write(tmp_path / "railway" / "test" / "a.png")
    assert read(tmp_path / "railway", ("test", "train")).classes == ("test", "train")


def test_where_sorting_names_as_text_is_not_what_they_count_it_is_said(tmp_path: Path) -> None:
    for name in ("0_ant", "1_bee", "10_dog"):
        write(tmp_path / name / "a.png")
    for classes in (None, ("x", "y", "z")):
        data = read(tmp_path, classes)
        assert data.labels.tolist() == [0, 1, 2]
        assert any("as text: '10_dog' comes before '1_bee'" in remark for remark in data.remarks)


LITTER = (
    ".ipynb_checkpoints",
    "@eaDir",
    "__MACOSX",
    ".git",
    "$RECYCLE.BIN",
    "System Volume Information",
    "#recycle",
    "lost+found",
)


@pytest.mark.parametrize("depth", [".", "cat", "cat/deep"])
def test_what_file_managers_leave_is_no_class_and_no_image(tmp_path: Path, depth: str) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / name / "a.png")
    write(tmp_path / "cat" / "deep" / "b.png")
    for name in LITTER:
        write(tmp_path / depth / name / "litter.png")
    for name in ("Thumbs.db", "._a.jpg", ".DS_Store", "desktop.ini"):
        (tmp_path / depth / name).write_bytes(b"no image")
    data = read(tmp_path)
    assert data.classes == ("cat", "dog")
    assert [Path(data.name(i)).name for i in range(data.count)] == ["a.png", "a.png", "b.png"]
    assert data.remarks == (f"{tmp_path}: left out {len(LITTER) + 4} hidden or left by a file manager",)


def test_every_common_suffix_is_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    kinds = {
        ".jpe": "JPEG",
        ".jfif": "JPEG",
        ".j2k": "JPEG2000",
        ".jp2": "JPEG2000",
        ".dib": "DIB",
        ".apng": "PNG",
        ".pnm": "PPM",
    }
    kinds |= {".pbm": "PPM", ".pgm": "PPM", ".jpg": "JPEG", ".tif": "TIFF"}
    for index, suffix in enumerate(SUFFIXES):
        kind = kinds.get(suffix, suffix[1:].upper())
        mode = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
        Image.new(mode, (8, 8), 1).save(tmp_path / f"{index}{suffix.upper()}", kind)
    for name in ("a.heic", "b.heic", "labels.csv", "README"):
        (tmp_path / name).write_text("")
    data = read(tmp_path)
    assert data.count == len(SUFFIXES)
    assert sum(len(batch) for batch in data.batches(4)) == len(SUFFIXES), "and each can be opened"
    assert data.remarks == (f"{tmp_path}: left out 2 '.heic', 1 '.csv', 1 'README'",)


def test_links_that_go_in_circles_are_read_once(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "a.png")
    write(tmp_path / "dog" / "b.png")
    for name, target in (("up", tmp_path), ("self", tmp_path / "cat"), ("dog", tmp_path / "dog")):
        (tmp_path / "cat" / name).symlink_to(target)
    data = read(tmp_path)
    assert data.labels.tolist() == [0, 1]
    assert data.remarks == (f"{tmp_path}: left out 3 link(s) to a folder that is read already",)


def test_links_to_images_elsewhere_are_images(tmp_path: Path) -> None:
    write(tmp_path / "store" / "a.png")
    write(tmp_path / "more" / "deep" / "b.png")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "a.png").symlink_to(tmp_path / "store" / "a.png")
    (tmp_path / "val" / "cat" / "more").symlink_to(tmp_path / "more")
    assert read(tmp_path / "val").count == 2


def test_pipes_devices_and_broken_links_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = read(tmp_path)
    assert data.count == 1
    assert data.remarks == (f"{tmp_path}: left out 3 no regular file, or a broken link",)
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(DataError, match=r"neither a folder nor a \.npy"):
        open_data(str(tmp_path / "pipe.npy"), SMALL)


def test_an_empty_folder_says_what_was_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_text("")
    with pytest.raises(DataError, match=r"holds no image; 1 '\.heic'\. Images end in \.apng"):
        read(tmp_path)


HEADERS = {
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3, 8, 8)}",
    "vast": "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999999999, 3, 8, 8)}",
    "deep": "(" * 3000 + ")" * 3000,
    "deep list": "{'descr': " + "[" * 2000 + "]" * 2000 + ", 'fortran_order': False, 'shape': (1,)}",
    "no dict": "1",
    "code": "__import__('os').system('x')",
    "unhashable": "{[]: 1}",
    "open": "{'descr': '<f4'",
    "dtype": "{'descr': 'O', 'fortran_order': False, 'shape': (1, 3, 8, 8)}",
    "odd dtype": "{'descr': '<f3', 'fortran_order': False, 'shape': (1, 3, 8, 8)}",
    "text": "{'descr': '<f4', 'fortran_order': False, 'shape': ('1', 3, 8, 8)}",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_npy_headers_that_are_damaged_or_meant_to_harm(tmp_path: Path, kind: str) -> None:
    header = HEADERS[kind].encode()
    data = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(64)
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.npy") as caught:
        open_data(str(tmp_path / "x.npy"), SMALL)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_npz_named_npy(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(DataError, match="holds several arrays"):
        open_data(str(tmp_path / "x.npy"), SMALL)


def test_where_labels_do_not_matter_any_tree_of_images_will_do(tmp_path: Path) -> None:
    """Images beside folders, empty ones, names that mean nothing: all are read, by turns, and nothing is said of them."""
    for name in ("loose.png", "b/1.png", "b/2.png", "7/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    found = read_folder(tmp_path, None, labeled=False)
    order = [str(path.relative_to(tmp_path)) for path in found.paths]
    assert (order[:2], sorted(order[2:])) == (["loose.png", "7/deep/3.png"], ["b/1.png", "b/2.png"])
    assert (found.labels, found.classes, found.remarks) == (None, None, ())
    with pytest.raises(DataError, match="holds no image"):
        read_folder(tmp_path / "empty", None, labeled=False)


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_share_of_images_without_labels_is_no_run_of_one_class(tmp_path: Path, inside: str) -> None:
    """Kaggle's cats and dogs lie in one folder, cats first: ranges of the first half of the names would know no dog."""
    (tmp_path / inside).mkdir(exist_ok=True)
    for kind in ("cat", "dog"):
        for number in range(100):
            (tmp_path / inside / f"{kind}.{number}.png").touch()
    paths = read_folder(tmp_path, None, labeled=False).paths
    for share in (20, 50, 100):
        assert 0.25 <= sum(path.name.startswith("cat") for path in paths[:share]) / share <= 0.75
    assert len(set(paths)) == 200
    assert paths == read_folder(tmp_path, None, labeled=False).paths
