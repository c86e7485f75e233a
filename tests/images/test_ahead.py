"""Reading ahead: in order, bounded, and never the same open picture on two threads at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.images import ahead
from toolkit.images.ahead import read_ahead
from toolkit.images.picture import preprocess
from toolkit.recipe import Preprocess

HOW = Preprocess(size=(32, 32))


@pytest.fixture(autouse=True)
def several_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "cores", lambda: 4)


def test_the_order_is_that_of_the_items_and_threads_are_used() -> None:
    used = set()

    def read(item: str) -> str:
        time.sleep(0.02 if int(item) % 2 == 0 else 0)
        used.add(threading.current_thread().name)
        return item

    items = [str(i) for i in range(20)]
    assert list(read_ahead(items, read)) == items
    assert len(used) > 1


def test_no_more_than_asked_for_are_drawn_ahead() -> None:
    drawn = 0

    def items() -> Iterator[str]:
        nonlocal drawn
        for i in range(1000):
            drawn = i + 1
            yield str(i)

    reading = read_ahead(items(), str, most=5)
    assert [next(reading) for _ in range(3)] == ["0", "1", "2"]
    assert drawn <= 3 + 5 + 2
    reading.close()


def test_an_error_comes_in_its_turn() -> None:
    def read(item: str) -> int:
        return int(item)

    reading = read_ahead(["1", "2", "x", "4"], read)
    assert [next(reading), next(reading)] == [1, 2]
    with pytest.raises(ValueError, match="'x'"):
        next(reading)


def test_an_open_picture_is_not_read_by_two_threads(tmp_path: Path) -> None:
    """Pillow decodes a file when it is first looked at; two threads that do so at once get half a picture, or an error."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    want = preprocess(tmp_path / "x.png", HOW)
    with Image.open(tmp_path / "x.png") as image:
        found = list(read_ahead([image] * 8, lambda picture: preprocess(picture, HOW)))
    assert all(np.array_equal(one, want) for one in found)


def test_small_pictures_in_memory_and_single_ones_are_read_by_the_caller() -> None:
    small = [np.zeros((28, 28), np.uint8)] * 3
    names = list(read_ahead(small, lambda item: threading.current_thread().name))
    assert set(names) == {threading.current_thread().name}
    assert list(read_ahead(["one"], lambda item: threading.current_thread().name)) == [threading.current_thread().name]
    large = [Image.new("RGB", (400, 300)), Image.new("RGB", (400, 300))]
    assert threading.current_thread().name not in list(read_ahead(large, lambda item: threading.current_thread().name))


def test_nothing_to_read() -> None:
    assert list(read_ahead([], str)) == []
